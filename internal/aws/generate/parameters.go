package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// parametersHeading begins what notes say of parameters: lists of operations, below
// each of which are the parameters that do not just work.
//
//   - CreateFunction, UpdateFunctionConfiguration
//   - VpcConfig, SnapStart: kept: what that means
//   - LoggingConfig.LogFormat: refused: why
//
// An operation may be in several lists, and must be in one if it is served. A parameter
// within another is named by its path; lists and maps add nothing to it.
const parametersHeading = "## Parameters\n"

// fates are what may become of a parameter, besides that it works.
var fates = []string{"kept", "refused"}

// exception is what becomes of parameters that do not just work.
type exception struct {
	parameters   []string
	fate, reason string
}

// readParameters takes what notes say of parameters, by operation, off their prose.
func readParameters(m *model, served map[string]bool) (prose string, exceptions map[string][]exception, err error) {
	prose, list, _ := strings.Cut(m.service.notes, parametersHeading)
	exceptions = map[string][]exception{}
	var operations []string
	for line := range strings.Lines(strings.ReplaceAll(list, "\n    ", " ")) {
		line = strings.TrimRight(line, "\n")
		if names, ok := strings.CutPrefix(line, "- "); ok {
			operations = strings.Split(names, ", ")
			for _, name := range operations {
				if !served[name] {
					return "", nil, fmt.Errorf("the notes of %s tell of the parameters of %s, which is not served", m.service.title, name)
				}
				if exceptions[name] == nil {
					exceptions[name] = []exception{}
				}
			}
			continue
		}
		if line == "" {
			continue
		}
		rest, indented := strings.CutPrefix(line, "  - ")
		part := strings.SplitN(rest, ": ", 3)
		if !indented || len(part) < 3 || !slices.Contains(fates, part[1]) || operations == nil {
			return "", nil, fmt.Errorf("the notes of %s: %q is neither a list of operations nor parameters with their fate, one of %q, and the reason", m.service.title, line, fates)
		}
		e := exception{strings.Split(part[0], ", "), part[1], part[2]}
		for _, name := range operations {
			for _, p := range e.parameters {
				if !m.takes(name, p) {
					return "", nil, fmt.Errorf("the notes of %s: %s has no parameter %s", m.service.title, name, p)
				}
			}
			exceptions[name] = append(exceptions[name], e)
		}
	}
	for _, name := range sortedKeys(served) {
		if m.Operations[name] != nil && exceptions[name] == nil {
			return "", nil, fmt.Errorf("the notes of %s say nothing of the parameters of %s", m.service.title, name)
		}
	}
	return prose, exceptions, nil
}

// takes tells whether an operation has a parameter of that path.
func (m *model) takes(operation, path string) bool {
	s := m.input(m.Operations[operation])
	for name := range strings.SplitSeq(path, ".") {
		for s != nil && (s.Type == "list" || s.Type == "map") {
			s = m.Shapes[s.Member.Shape+s.Value.Shape]
		}
		if s == nil {
			return false
		}
		i := slices.IndexFunc(s.Members, func(mb member) bool { return mb.Name == name })
		if i < 0 {
			return false
		}
		s = m.Shapes[s.Members[i].Shape]
	}
	return true
}

// working are the parameters of an operation that just work.
func (m *model) working(operation string, exceptions []exception) (list []string) {
	s := m.input(m.Operations[operation])
	if s == nil {
		return nil
	}
	for _, mb := range s.Members {
		if !slices.ContainsFunc(exceptions, func(e exception) bool { return slices.Contains(e.parameters, mb.Name) }) {
			list = append(list, mb.Name)
		}
	}
	return list
}

// summary is how many parameters of an operation have which fate.
func summary(working []string, exceptions []exception) string {
	count := map[string]int{"works": len(working)}
	for _, e := range exceptions {
		count[e.fate] += len(e.parameters)
	}
	var parts []string
	for _, fate := range append([]string{"works"}, fates...) {
		switch n := count[fate]; {
		case n == 0:
		case fate == "works" && n == 1:
			parts = append(parts, "1 works")
		case fate == "works":
			parts = append(parts, fmt.Sprintf("%d work", n))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, fate))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// writeParameters tells of the parameters of one operation.
func writeParameters(b *bytes.Buffer, operation string, working []string, exceptions []exception) {
	fmt.Fprintf(b, "\n**%s**", operation)
	if len(working) > 0 {
		fmt.Fprintf(b, " works: %s", quoted(working))
	}
	b.WriteString("\n")
	for _, fate := range fates {
		for _, e := range exceptions {
			if e.fate == fate {
				fmt.Fprintf(b, "- %s: %s – %s\n", fate, quoted(e.parameters), e.reason)
			}
		}
	}
}

func quoted(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
