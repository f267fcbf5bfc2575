// The etcd that konsul-bench measures: upstream's own server, and nothing else, so that the newest
// release can be had wherever Go and its module proxy are.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
