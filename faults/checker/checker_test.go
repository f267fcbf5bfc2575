package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const limit = 10 * time.Second

// Histories of one key. Times are in the order of the lines unless they overlap.
var histories = []struct {
	name  string
	ok    bool
	lines string
}{
	{"nothing happened", true, ``},
	{"one after the other", true, `
		{"op":"get","outcome":"done","called_ns":0,"returned_ns":1,"found":null}
		{"op":"put","value":"a","outcome":"done","called_ns":2,"returned_ns":3,"revision":5,"found":null}
		{"op":"get","outcome":"done","called_ns":4,"returned_ns":5,"found":{"value":"a","revision":5}}
		{"op":"cas","expected":5,"value":"b","outcome":"done","called_ns":6,"returned_ns":7,"revision":6,"found":{"value":"a","revision":5}}
		{"op":"cas","expected":5,"value":"c","outcome":"refused","called_ns":8,"returned_ns":9,"found_revision":6}
		{"op":"delete","outcome":"done","called_ns":10,"returned_ns":11,"revision":9,"found":{"value":"b","revision":6}}
		{"op":"delete","outcome":"done","called_ns":12,"returned_ns":13,"revision":9,"found":null}
		{"op":"cas","expected":6,"value":"d","outcome":"refused","called_ns":14,"returned_ns":15,"found_revision":0}
		{"op":"cas","expected":0,"value":"e","outcome":"done","called_ns":16,"returned_ns":17,"revision":10,"found":null}`},
	{"at the same time, in either order", true, `
		{"client":1,"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":9,"revision":2,"found":{"value":"b","revision":1}}
		{"client":2,"op":"put","value":"b","outcome":"done","called_ns":1,"returned_ns":8,"revision":1,"found":null}
		{"client":3,"op":"get","outcome":"done","called_ns":2,"returned_ns":7,"found":{"value":"b","revision":1}}
		{"client":4,"op":"get","outcome":"done","called_ns":3,"returned_ns":7,"found":{"value":"a","revision":2}}`},
	{"an unknown put that happened, late", true, `
		{"op":"put","value":"a","outcome":"unknown","called_ns":0}
		{"op":"get","outcome":"done","called_ns":10,"returned_ns":11,"found":null}
		{"op":"get","outcome":"done","called_ns":12,"returned_ns":13,"found":{"value":"a","revision":3}}
		{"op":"get","outcome":"done","called_ns":14,"returned_ns":15,"found":{"value":"a","revision":3}}`},
	{"unknown writes that never happened", true, `
		{"op":"put","value":"a","outcome":"unknown","called_ns":0}
		{"op":"delete","outcome":"unknown","called_ns":1}
		{"op":"cas","expected":0,"value":"c","outcome":"unknown","called_ns":2}
		{"op":"get","outcome":"unknown","called_ns":3}
		{"op":"put","value":"b","outcome":"done","called_ns":10,"returned_ns":11,"revision":1,"found":null}
		{"op":"get","outcome":"done","called_ns":12,"returned_ns":13,"found":{"value":"b","revision":1}}`},
	{"an unknown cas that did not hold when it came", true, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"client":2,"op":"cas","expected":1,"value":"b","outcome":"unknown","called_ns":2}
		{"op":"put","value":"c","outcome":"done","called_ns":3,"returned_ns":4,"revision":2,"found":{"value":"a","revision":1}}
		{"op":"get","outcome":"done","called_ns":5,"returned_ns":6,"found":{"value":"c","revision":2}}`},
	{"an unknown delete that happened", true, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"client":2,"op":"delete","outcome":"unknown","called_ns":2}
		{"op":"cas","expected":1,"value":"b","outcome":"refused","called_ns":3,"returned_ns":4,"found_revision":0}`},
	{"a put that was certainly not done", true, `
		{"op":"put","value":"a","outcome":"not_done","called_ns":0,"returned_ns":1}
		{"op":"get","outcome":"done","called_ns":2,"returned_ns":3,"found":null}`},

	{"stale read", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"op":"put","value":"b","outcome":"done","called_ns":2,"returned_ns":3,"revision":2,"found":{"value":"a","revision":1}}
		{"client":2,"op":"get","outcome":"done","called_ns":4,"returned_ns":5,"found":{"value":"a","revision":1}}`},
	{"lost write", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"op":"get","outcome":"done","called_ns":2,"returned_ns":3,"found":null}`},
	{"lost update: two cas from one version", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"client":1,"op":"cas","expected":1,"value":"b","outcome":"done","called_ns":2,"returned_ns":9,"revision":2,"found":{"value":"a","revision":1}}
		{"client":2,"op":"cas","expected":1,"value":"c","outcome":"done","called_ns":3,"returned_ns":8,"revision":3,"found":{"value":"a","revision":1}}`},
	{"a write that says it found what was overwritten before", false, `
		{"client":1,"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":9,"revision":1,"found":null}
		{"client":2,"op":"put","value":"b","outcome":"done","called_ns":1,"returned_ns":8,"revision":2,"found":null}`},
	{"refused though it held", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"op":"cas","expected":1,"value":"b","outcome":"refused","called_ns":2,"returned_ns":3,"found_revision":1}`},
	{"refused because of a revision that was not there", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":3,"found":null}
		{"op":"cas","expected":1,"value":"b","outcome":"refused","called_ns":2,"returned_ns":3,"found_revision":2}`},
	{"what certainly was not done is read", false, `
		{"op":"put","value":"a","outcome":"not_done","called_ns":0,"returned_ns":1}
		{"op":"get","outcome":"done","called_ns":2,"returned_ns":3,"found":{"value":"a","revision":1}}`},
	{"an unknown write that came and went", false, `
		{"client":2,"op":"put","value":"a","outcome":"unknown","called_ns":0}
		{"op":"get","outcome":"done","called_ns":1,"returned_ns":2,"found":{"value":"a","revision":1}}
		{"op":"get","outcome":"done","called_ns":3,"returned_ns":4,"found":null}`},
	{"an unknown write that was done twice", false, `
		{"client":2,"op":"put","value":"a","outcome":"unknown","called_ns":0}
		{"op":"put","value":"b","outcome":"done","called_ns":1,"returned_ns":2,"revision":2,"found":{"value":"a","revision":1}}
		{"op":"get","outcome":"done","called_ns":3,"returned_ns":4,"found":{"value":"a","revision":3}}`},
	{"an unknown write read before its call", false, `
		{"op":"get","outcome":"done","called_ns":0,"returned_ns":1,"found":{"value":"a","revision":1}}
		{"client":2,"op":"put","value":"a","outcome":"unknown","called_ns":2}`},
	{"a revision that went back", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":7,"found":null}
		{"op":"put","value":"b","outcome":"done","called_ns":2,"returned_ns":3,"revision":6,"found":{"value":"a","revision":7}}`},
	{"a value that is at two revisions", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":7,"found":null}
		{"op":"get","outcome":"done","called_ns":2,"returned_ns":3,"found":{"value":"a","revision":8}}`},
	{"a deleted key that came back", false, `
		{"op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
		{"op":"delete","outcome":"done","called_ns":2,"returned_ns":3,"revision":2,"found":{"value":"a","revision":1}}
		{"op":"get","outcome":"done","called_ns":4,"returned_ns":5,"found":{"value":"a","revision":1}}`},
}

func TestHistories(t *testing.T) {
	for _, history := range histories {
		byKey, err := readHistory(strings.NewReader(strings.TrimSpace(history.lines)))
		if err != nil {
			t.Fatalf("%s: %v", history.name, err)
		}
		if found := check(byKey, limit); found.ok() != history.ok || len(found.undecided) > 0 {
			t.Errorf("%s: %+v", history.name, found)
		}
	}
}

// Each key is a register of its own.
func TestOnlyTheBrokenKeyIsNamedAndDrawn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	lines := `{"key":"good","op":"put","value":"a","outcome":"done","called_ns":0,"returned_ns":1,"revision":1,"found":null}
{"key":"a/bad","op":"get","outcome":"done","called_ns":2,"returned_ns":3,"found":{"value":"a","revision":1}}`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := run(path, limit); ok || err != nil {
		t.Fatal(ok, err)
	}
	drawings, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.html"))
	if len(drawings) != 1 || filepath.Base(drawings[0]) != "a-bad.html" {
		t.Fatal(drawings)
	}
}

func TestWhatIsNoHistoryIsRefused(t *testing.T) {
	for _, line := range []string{
		`not JSON`,
		`{"op":"jump","outcome":"done"}`,
		`{"op":"get","outcome":"perhaps"}`,
		`{"op":"put","outcome":"refused"}`,
		`{"op":"get","outcome":"done","called_ns":2,"returned_ns":1}`,
	} {
		if _, err := readHistory(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
