package redis

import (
	"strconv"

	host "phasor/internal/wit/phasor_plugin_redis"
)

// A Reply is what Redis answers.
type Reply struct {
	// Value is nil, a bool, an int64, a float64, a Status, a []byte, an *Error in the place of a value,
	// a []Reply (a list or a set), or a []Pair.
	Value any
}

// A Status is a short text of Redis itself, such as `OK`.
type Status string

// A Pair is an entry of a map.
type Pair struct {
	Key, Value Reply
}

// Bytes are those of a string, and whether it is one.
func (r Reply) Bytes() ([]byte, bool) {
	switch value := r.Value.(type) {
	case []byte:
		return value, true
	case Status:
		return []byte(value), true
	default:
		return nil, false
	}
}

// Text is a string, and whether it is one.
func (r Reply) Text() (string, bool) {
	bytes, there := r.Bytes()
	return string(bytes), there
}

// Integer is a number, also when it is written in a string.
func (r Reply) Integer() (int64, bool) {
	switch value := r.Value.(type) {
	case int64:
		return value, true
	case []byte:
		number, err := strconv.ParseInt(string(value), 10, 64)
		return number, err == nil
	default:
		return 0, false
	}
}

// List are the members of a list or a set.
func (r Reply) List() []Reply {
	list, _ := r.Value.([]Reply)
	return list
}

// Err is an error in the place of a value: of one command of a pipeline, or inside a list.
func (r Reply) Err() error {
	if err, failed := r.Value.(*Error); failed {
		return err
	}
	return nil
}

func reply(from host.Reply) Reply {
	if from.Tag() == host.ReplySingle {
		return (&flat{values: []host.Value{from.Single()}}).next()
	}
	return (&flat{values: from.Nested()}).next()
}

// Values that follow each other, depth first.
type flat struct {
	values []host.Value
}

func (f *flat) next() Reply {
	if len(f.values) == 0 {
		return Reply{}
	}
	value := f.values[0]
	f.values = f.values[1:]
	switch value.Tag() {
	case host.ValueBoolean:
		return Reply{value.Boolean()}
	case host.ValueInteger:
		return Reply{value.Integer()}
	case host.ValueDouble:
		return Reply{value.Double()}
	case host.ValueStatus:
		return Reply{Status(value.Status())}
	case host.ValueBytes:
		return Reply{value.Bytes()}
	case host.ValueFailed:
		return Reply{&Error{Failed, value.Failed()}}
	case host.ValueBeginList:
		return f.list(value.BeginList())
	case host.ValueBeginSet:
		return f.list(value.BeginSet())
	case host.ValueBeginMap:
		return f.pairs(value.BeginMap())
	default:
		return Reply{}
	}
}

func (f *flat) list(count uint32) Reply {
	list := make([]Reply, 0, min(int(count), len(f.values)))
	for range count {
		list = append(list, f.next())
	}
	return Reply{list}
}

func (f *flat) pairs(count uint32) Reply {
	pairs := make([]Pair, 0, min(int(count), len(f.values)))
	for range count {
		key := f.next()
		pairs = append(pairs, Pair{key, f.next()})
	}
	return Reply{pairs}
}
