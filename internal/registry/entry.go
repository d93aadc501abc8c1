package registry

import (
	"cmp"
	"iter"
	"slices"

	"kiln/internal/lambda"
	"kiln/internal/state"
)

// functions are those of one scope.
type functions struct {
	byName  map[lambda.FunctionName]*function
	names   []lambda.FunctionName         // of byName, sorted: lists need not sort 10,000 for 50
	claims  map[lambda.FunctionName]claim // of those that have any
	claimed int                           // their sum
}

// function is what has one name. Its entries and aliases are replaced, never changed.
type function struct {
	latest   *entry
	versions []*entry // published, ascending
	aliases  map[lambda.Qualifier]*alias
}

// entry is one version of a function, $LATEST among them.
type entry struct {
	shown     *lambda.Function // what the API shows
	serving   *lambda.Function // what invocations run; nil while it is being created
	settled   chan struct{}    // closed when shown has no change in progress
	attached  lambda.Attached
	last      int64  // of $LATEST: the number that was given last; no version gets it again
	published string // of a version: the fingerprint of the $LATEST that it is
	revision  state.Revision
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func unsettled(f *lambda.Function) bool {
	return f.State == lambda.Pending || f.UpdateStatus == lambda.UpdateInProgress
}

// packages are what the entry needs: the code and layers of what is shown, and of
// what runs.
func (e *entry) packages() (list []lambda.Code) {
	for _, f := range []*lambda.Function{e.shown, e.serving} {
		if f == nil {
			continue
		}
		list = append(list, f.Code)
		for _, l := range f.Settings.Layers {
			list = append(list, l.Code)
		}
	}
	return list
}

// scope returns a scope's functions. r.mu is held.
func (r *Registry) scope(scope lambda.Scope) *functions {
	s := r.functions[scope]
	if s == nil {
		s = &functions{byName: map[lambda.FunctionName]*function{}, claims: map[lambda.FunctionName]claim{}}
		r.functions[scope] = s
	}
	return s
}

// function returns what has the ARN's name, or nil. r.mu is held.
func (r *Registry) function(arn lambda.FunctionARN) *function {
	return r.functions[arn.Scope].find(arn.Name)
}

// find returns the version that the ARN names, or nil.
func (r *Registry) find(arn lambda.FunctionARN) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.function(arn).version(arn.Qualifier)
}

func (s *functions) find(name lambda.FunctionName) *function {
	if s == nil {
		return nil
	}
	f := s.byName[name]
	if f == nil || f.latest == nil {
		return nil // at most its aliases are loaded
	}
	return f
}

// after are the functions behind a name, in order.
func (s *functions) after(name lambda.FunctionName) iter.Seq2[lambda.FunctionName, *function] {
	return func(yield func(lambda.FunctionName, *function) bool) {
		if s == nil {
			return
		}
		i, found := slices.BinarySearch(s.names, name)
		if found {
			i++
		}
		for _, name := range s.names[i:] {
			if f := s.find(name); f != nil && !yield(name, f) {
				return
			}
		}
	}
}

// named returns what has the name, made where there was nothing.
func (s *functions) named(name lambda.FunctionName) *function {
	f := s.byName[name]
	if f == nil {
		f = &function{aliases: map[lambda.Qualifier]*alias{}}
		s.byName[name] = f
		i, _ := slices.BinarySearch(s.names, name)
		s.names = slices.Insert(s.names, i, name)
	}
	return f
}

// put adds an entry, and returns the one in whose place it is.
func (s *functions) put(e *entry) (old *entry) {
	f := s.named(e.shown.ARN.Name)
	if e.shown.Version == lambda.Latest {
		old, f.latest = f.latest, e
		return old
	}
	i, found := f.search(e.shown.Version.Number())
	if found {
		old, f.versions[i] = f.versions[i], e
	} else {
		f.versions = slices.Insert(f.versions, i, e)
	}
	return old
}

// remove takes an entry out; with $LATEST, the function.
func (s *functions) remove(e *entry) {
	name := e.shown.ARN.Name
	if e.shown.Version == lambda.Latest {
		delete(s.byName, name)
		if i, found := slices.BinarySearch(s.names, name); found {
			s.names = slices.Delete(s.names, i, i+1)
		}
		return
	}
	f := s.byName[name]
	if i, found := f.search(e.shown.Version.Number()); found {
		f.versions = slices.Delete(f.versions, i, i+1)
	}
}

func (f *function) search(number int64) (int, bool) {
	return slices.BinarySearchFunc(f.versions, number, func(e *entry, n int64) int { return cmp.Compare(e.shown.Version.Number(), n) })
}

// version is the one that the qualifier names, by its number or an alias, or nil.
func (f *function) version(q lambda.Qualifier) *entry {
	if f == nil {
		return nil
	}
	if q == "" || q == lambda.Latest {
		return f.latest
	}
	if a := f.aliases[q]; a != nil {
		return f.version(a.shown.Version)
	}
	if i, found := f.search(q.Number()); found {
		return f.versions[i]
	}
	return nil
}

func (f *function) alias(q lambda.Qualifier) *alias {
	if f == nil {
		return nil
	}
	return f.aliases[q]
}

// list returns up to limit published versions after a number, and whether there are more.
func (f *function) list(after int64, limit int) (page []*lambda.Function, more bool) {
	i, _ := f.search(after + 1)
	rest := f.versions[i:]
	for _, e := range rest[:min(limit, len(rest))] {
		page = append(page, e.shown)
	}
	return page, len(rest) > limit
}
