// Package witRuntime is the memory side of the generated bindings.
//
// What the host hands over is written into memory that `cabi_realloc` gives. It must not come from
// Go's heap: an allocation there may start a collection, a collection asks for the time, and asking
// is a call of the host, which the component model forbids at this point. So it comes from arenas
// that the collector does not know, and the bindings copy it out at once.
package witRuntime

import (
	"runtime"
	"unsafe"
)

//go:linkname sbrk runtime.sbrk
func sbrk(size uintptr) unsafe.Pointer

// The first block of an arena, in bytes; each further one is twice as long.
const firstBlock = 64 << 10

// An arena gives memory until it is reset. Blocks are kept: what a busy call needed once is there
// for the next.
type arena struct {
	blocks [16]unsafe.Pointer
	block  int
	used   uintptr
}

func (a *arena) take(size, align uintptr) unsafe.Pointer {
	for ; a.block < len(a.blocks); a.block++ {
		length := uintptr(firstBlock) << a.block
		start := (a.used + align - 1) &^ (align - 1)
		if start <= length && size <= length-start {
			if a.blocks[a.block] == nil {
				a.blocks[a.block] = fresh(length)
			}
			a.used = start + size
			return unsafe.Add(a.blocks[a.block], start)
		}
		a.used = 0
	}
	// Beyond 2 GiB nothing helps; a nil pointer makes the host trap.
	return nil
}

func (a *arena) reset() {
	a.block, a.used = 0, 0
}

// Memory for ever, aligned to 16.
func fresh(size uintptr) unsafe.Pointer {
	start := sbrk(size + 16)
	return unsafe.Add(start, -uintptr(start)&15)
}

var (
	// What the host's functions return; empty again when none of them is running.
	results arena
	// What a handler is called with; empty again when it has returned.
	arguments arena
	// The host's functions that are running: more than one when goroutines overlap.
	calls int
)

// Enter begins a call of the host.
func Enter() {
	calls++
}

// Leave ends it: the bindings have copied what it returned.
func Leave(pinner *runtime.Pinner) {
	pinner.Unpin()
	calls--
	if calls == 0 {
		results.reset()
	}
}

// Return ends a handler's call: the host has copied what it returned.
func Return(pinner *runtime.Pinner) {
	pinner.Unpin()
	arguments.reset()
}

// Unpin is called when a handler's arguments have been copied.
func Unpin() {
	arguments.reset()
}

//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	target := &arguments
	if calls > 0 {
		target = &results
	}
	moved := target.take(size, align)
	if oldSize > 0 && moved != nil {
		copy(unsafe.Slice((*byte)(moved), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return moved
}

// The WASI adapter keeps its state in what it takes, so that never goes back.
//
//go:wasmexport cabi_realloc_adapter
func cabiReallocAdapter(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	return fresh(size)
}

// CopyString copies a string that the host wrote into an arena.
func CopyString[N uint32 | int | uintptr](start *uint8, length N) string {
	return string(unsafe.Slice(start, length))
}

// CopySlice copies a list that the host wrote into an arena.
func CopySlice[T any, N uint32 | int | uintptr](start *T, length N) []T {
	return append(make([]T, 0, length), unsafe.Slice(start, length)...)
}

// Allocate gives pinned memory of Go's heap: for what goes to the host.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	// Words of eight bytes, because nothing in the contract wants more alignment.
	words := make([]uint64, (size+7)/8)
	start := unsafe.Pointer(unsafe.SliceData(words))
	pinner.Pin(start)
	return start
}

// A Handle is a resource's number, until it is given away.
type Handle struct {
	value int32
}

// MakeHandle keeps a number.
func MakeHandle(value int32) *Handle {
	return &Handle{value}
}

// Use lends the number.
func (h *Handle) Use() int32 {
	if h.value == 0 {
		panic("a resource was used after it was given away")
	}
	return h.value
}

// Take gives the number away.
func (h *Handle) Take() int32 {
	value := h.Use()
	h.value = 0
	return value
}

// TakeOrNil gives the number away, if it is still there.
func (h *Handle) TakeOrNil() int32 {
	value := h.value
	h.value = 0
	return value
}

// Set keeps a number where there is none.
func (h *Handle) Set(value int32) {
	if h.value != 0 {
		panic("a resource was put where another one is")
	}
	h.value = value
}
