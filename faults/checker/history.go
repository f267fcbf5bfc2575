package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/anishathalye/porcupine"
)

// Longest line of a history.
const lineMaxBytes = 1 << 20

// What a read or a write found of a key.
type version struct {
	Value    string `json:"value"`
	Revision uint64 `json:"revision"`
}

// A line of a history: what was asked, when, and what came of it.
type record struct {
	Client int    `json:"client"`
	Via    string `json:"via"`
	Op     string `json:"op"`
	Key    string `json:"key"`
	// Of a put or a cas.
	Value string `json:"value"`
	// The revision a cas compares with; 0: the key must not be there.
	Expected uint64 `json:"expected"`
	// Nanoseconds of one monotonic clock.
	Called   int64  `json:"called_ns"`
	Returned int64  `json:"returned_ns"`
	Outcome  string `json:"outcome"`
	// Of a write that was done.
	Revision uint64 `json:"revision"`
	// What a get found, or what a write found before it changed it; null: nothing.
	Found *version `json:"found"`
	// The revision that a refused cas found; 0: the key was not there.
	FoundRevision uint64 `json:"found_revision"`
}

const (
	opGet    = "get"
	opPut    = "put"
	opCAS    = "cas"
	opDelete = "delete"

	// It was done and answered.
	outcomeDone = "done"
	// Its precondition did not hold and nothing was changed.
	outcomeRefused = "refused"
	// It certainly was not done.
	outcomeNotDone = "not_done"
	// Nobody knows, and it may still happen.
	outcomeUnknown = "unknown"
)

// Reads a history, one JSON object a line, and sorts it by key. What was certainly not done and reads without an answer say
// nothing about the store and are left out.
func readHistory(from io.Reader) (map[string][]record, error) {
	byKey := map[string][]record{}
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, lineMaxBytes)
	for number := 1; lines.Scan(); number++ {
		var line record
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if err := line.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if line.Outcome == outcomeNotDone || line.Outcome == outcomeUnknown && line.Op == opGet {
			continue
		}
		byKey[line.Key] = append(byKey[line.Key], line)
	}
	return byKey, lines.Err()
}

func (r record) check() error {
	switch r.Op {
	case opGet, opPut, opCAS, opDelete:
	default:
		return fmt.Errorf("there is no operation %q", r.Op)
	}
	switch r.Outcome {
	case outcomeDone, outcomeNotDone, outcomeUnknown:
	case outcomeRefused:
		if r.Op != opCAS {
			return fmt.Errorf("only a cas can be refused, and this is a %s", r.Op)
		}
	default:
		return fmt.Errorf("there is no outcome %q", r.Outcome)
	}
	if r.Outcome != outcomeUnknown && r.Returned < r.Called {
		return fmt.Errorf("it returned at %d ns before it was called at %d ns", r.Returned, r.Called)
	}
	return nil
}

// The operations of one key as porcupine takes them. One with an unknown outcome never returns, so that it may have happened at
// any time after its call, and its client goes on under another number, as a client has one operation at a time.
func operations(records []record) []porcupine.Operation {
	numbers, next := map[int]int{}, 0
	done := make([]porcupine.Operation, 0, len(records))
	for _, r := range records {
		number, known := numbers[r.Client]
		if !known {
			number = next
			next++
			numbers[r.Client] = number
		}
		returned := r.Returned
		if r.Outcome == outcomeUnknown {
			returned = math.MaxInt64
			delete(numbers, r.Client)
		}
		done = append(done, porcupine.Operation{ClientId: number, Input: r, Call: r.Called, Output: r, Return: returned})
	}
	return done
}
