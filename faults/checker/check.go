package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// What was found about a history.
type verdict struct {
	keys, operations int
	// Keys whose operations have no order that explains what came of them.
	illegal []string
	// Keys that could not be decided in time.
	undecided []string
}

func (v verdict) ok() bool {
	return len(v.illegal) == 0 && len(v.undecided) == 0
}

// Checks each key by itself, as keys don't influence each other, and gives each this much time.
func check(byKey map[string][]record, limit time.Duration) verdict {
	found := verdict{keys: len(byKey)}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		found.operations += len(byKey[key])
		switch porcupine.CheckOperationsTimeout(model(), operations(sorted(byKey[key])), limit) {
		case porcupine.Illegal:
			found.illegal = append(found.illegal, key)
		case porcupine.Unknown:
			found.undecided = append(found.undecided, key)
		}
	}
	return found
}

// Draws a key's operations, the longest orders that were found, and where they break off.
func draw(records []record, limit time.Duration, path string) error {
	_, info := porcupine.CheckOperationsVerbose(model(), operations(sorted(records)), limit)
	return porcupine.VisualizePath(model(), info, path)
}

// In the order of their calls, which the lines of a history are not in.
func sorted(records []record) []record {
	return slices.SortedStableFunc(slices.Values(records), func(a, b record) int { return cmp.Compare(a.Called, b.Called) })
}
