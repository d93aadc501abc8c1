package registry

import "kiln/internal/lambda"

// Account is what GetAccountSettings tells of a scope, and its limits.
type Account struct {
	Functions   int
	CodeSize    int64 // bytes of the packages of all versions and layer versions
	CodeStorage int64 // what they may be
	Concurrency int   // concurrent executions at once
	Unreserved  int   // of those, what functions share that have none to themselves
}

// Account counts what a scope has.
func (r *Registry) Account(scope lambda.Scope) Account {
	committed, _ := r.committed(lambda.FunctionARN{Scope: scope})
	r.mu.RLock()
	defer r.mu.RUnlock()
	a := Account{CodeSize: r.codeSize(scope), CodeStorage: r.config.CodeStorage, Concurrency: r.config.Concurrency, Unreserved: r.config.Concurrency - committed}
	for range r.functions[scope].after("") {
		a.Functions++
	}
	return a
}

// codeSize is what the packages of the scope have, in bytes. r.mu is held.
func (r *Registry) codeSize(scope lambda.Scope) (sum int64) {
	for _, f := range r.functions[scope].after("") {
		sum += f.latest.shown.Code.Size
		for _, v := range f.versions {
			sum += v.shown.Code.Size
		}
	}
	for _, l := range r.layers[scope] {
		for _, v := range l.versions {
			sum += v.Code.Size
		}
	}
	return sum
}

// checkStorage refuses a package that the scope has no room for.
func (r *Registry) checkStorage(scope lambda.Scope, size int64) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.codeSize(scope)+size > r.config.CodeStorage {
		return lambda.CodeStorageExceeded()
	}
	return nil
}
