package main

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// One key: whether it is there, with which value, and since which revision.
type state struct {
	exists bool
	value  string
	// The revision of the key's last write; where it is not known, as nobody was told, the greatest that it must exceed.
	revision uint64
	known    bool
}

// The model of one key. A write whose outcome is unknown takes a step that fits whatever comes: one that was never done, or a
// cas that did not hold, is put behind everything else, where nobody looks.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{known: true} },
		Step: func(from, input, _ any) (bool, any) {
			return step(from.(state), input.(record))
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(record)) },
		DescribeState:     func(of any) string { return of.(state).String() },
	}
}

func step(s state, r record) (bool, state) {
	if r.Outcome == outcomeUnknown {
		return true, s.afterUnknown(r)
	}
	if r.Outcome == outcomeRefused {
		if r.FoundRevision == r.Expected {
			return false, s
		}
		return s.at(r.FoundRevision)
	}
	ok, s := s.saw(r.Found)
	if !ok {
		return false, s
	}
	switch r.Op {
	case opPut, opCAS:
		if r.Op == opCAS && s.present() != r.Expected || r.Revision <= s.revision {
			return false, s
		}
		return true, state{exists: true, value: r.Value, revision: r.Revision, known: true}
	case opDelete:
		// What deletes nothing takes no revision.
		if !s.exists {
			return true, s
		}
		if r.Revision <= s.revision {
			return false, s
		}
		return true, state{revision: r.Revision, known: true}
	default:
		return true, s
	}
}

// The state with what was seen of the key; whether both can be true.
func (s state) saw(found *version) (bool, state) {
	if found == nil {
		return !s.exists, s
	}
	if !s.exists || s.value != found.Value {
		return false, s
	}
	return s.at(found.Revision)
}

// The state with a revision that the key was seen at, 0 for a key that was not there; whether both can be true.
func (s state) at(revision uint64) (bool, state) {
	if revision == 0 {
		return !s.exists, s
	}
	if !s.exists || s.known && s.revision != revision || !s.known && s.revision >= revision {
		return false, s
	}
	s.revision, s.known = revision, true
	return true, s
}

// The key's revision as a cas compares it.
func (s state) present() uint64 {
	if !s.exists {
		return 0
	}
	return s.revision
}

func (s state) afterUnknown(r record) state {
	switch r.Op {
	case opDelete:
		if !s.exists {
			return s
		}
		return state{revision: s.revision}
	case opCAS:
		if holds, _ := s.at(r.Expected); !holds {
			return s
		}
		return state{exists: true, value: r.Value, revision: max(s.revision, r.Expected)}
	default:
		return state{exists: true, value: r.Value, revision: s.revision}
	}
}

func (s state) String() string {
	about := "@"
	if !s.known {
		about = "@>"
	}
	if !s.exists {
		return fmt.Sprintf("absent %s%d", about, s.revision)
	}
	return fmt.Sprintf("%s %s%d", s.value, about, s.revision)
}

func (v *version) String() string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s @%d", v.Value, v.Revision)
}

func describe(r record) string {
	var asked string
	switch r.Op {
	case opPut:
		asked = "put " + r.Value
	case opCAS:
		asked = fmt.Sprintf("cas @%d %s", r.Expected, r.Value)
	default:
		asked = r.Op
	}
	switch {
	case r.Outcome == outcomeRefused:
		return fmt.Sprintf("%s: refused, found @%d", asked, r.FoundRevision)
	case r.Outcome == outcomeUnknown:
		return asked + ": unknown"
	case r.Op == opGet:
		return fmt.Sprintf("get: %s", r.Found)
	default:
		return fmt.Sprintf("%s: @%d, found %s", asked, r.Revision, r.Found)
	}
}
