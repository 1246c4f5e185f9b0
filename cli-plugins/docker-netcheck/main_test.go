package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

// TestLazyCollector says that the collector is lazy until it has to work, and no lazier then than usual.
func TestLazyCollector(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer debug.SetGCPercent(percent)
	defer debug.SetMemoryLimit(limit)
	lazyCollector()
	if got := debug.SetMemoryLimit(-1); got != heapLimit {
		t.Fatalf("the limit is %d, want %d", got, heapLimit)
	}
	for try := 0; debug.SetMemoryLimit(-1) != math.MaxInt64; try++ {
		if try == 1000 {
			t.Fatal("after 1000 collections the limit still holds")
		}
		runtime.GC()
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("the collector waits for %d %%", got)
	}
}
