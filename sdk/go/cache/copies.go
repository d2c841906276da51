package cache

import (
	"container/list"

	host "phasor/internal/wit/phasor_plugin_cache"
)

// A value that this instance has decoded.
type kept[T any] struct {
	key   string
	value *T
	stamp host.Stamp
}

// Decoded values; when there are as many as may be, the one used longest ago goes.
type copies[T any] struct {
	most  int
	byKey map[string]*list.Element
	order *list.List
}

func newCopies[T any](most uint32) copies[T] {
	return copies[T]{int(most), map[string]*list.Element{}, list.New()}
}

func (c *copies[T]) find(key string) (*kept[T], bool) {
	element, there := c.byKey[key]
	if !there {
		return nil, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*kept[T]), true
}

func (c *copies[T]) forget(key string) {
	if element, there := c.byKey[key]; there {
		c.order.Remove(element)
		delete(c.byKey, key)
	}
}

func (c *copies[T]) keep(key string, value *T, stamp host.Stamp) {
	c.forget(key)
	// A stamp without an end says that the value must not be kept.
	if c.most == 0 || stamp.Until == 0 {
		return
	}
	if len(c.byKey) >= c.most {
		c.forget(c.order.Back().Value.(*kept[T]).key)
	}
	c.byKey[key] = c.order.PushFront(&kept[T]{key, value, stamp})
}
