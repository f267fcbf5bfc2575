// Checks that a history of operations on single keys is linearizable: that they can be put into one order, each at a moment between its
// call and its return, in which each key behaves as one register with revisions.
//
//	checker [--limit 60s] HISTORY
//
// It prints `linearizable` and ends with 0, or names each key that isn't, draws it into an HTML file beside the history, and ends
// with 1. With 2 it ends when the history can't be read.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// What a key may have that a file's name had better not.
var unusual = regexp.MustCompile(`[^\w.-]+`)

func main() {
	limit := flag.Duration("limit", time.Minute, "time for each key")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: checker [--limit 60s] HISTORY")
		os.Exit(2)
	}
	ok, err := run(flag.Arg(0), *limit)
	if err != nil {
		fmt.Fprintf(os.Stderr, "checker: %v\n", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(path string, limit time.Duration) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	byKey, err := readHistory(file)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	found := check(byKey, limit)
	for _, key := range found.undecided {
		fmt.Printf("%s: not decided within %v\n", key, limit)
	}
	for _, key := range found.illegal {
		drawing := filepath.Join(filepath.Dir(path), unusual.ReplaceAllString(key, "-")+".html")
		if err := draw(byKey[key], limit, drawing); err != nil {
			return false, err
		}
		fmt.Printf("%s: not linearizable, drawn in %s\n", key, drawing)
	}
	if found.ok() {
		fmt.Printf("linearizable: %d operations on %d keys\n", found.operations, found.keys)
	}
	return found.ok(), nil
}
