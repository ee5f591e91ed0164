package node

import (
	"net"
	"sync"
)

// connections is a listener that can close what it has accepted, and has at most so many connections open: what
// comes beyond them is closed. A gRPC server does not close, when it stops, connections that have not said hello
// yet: it waits for each as long as a minute or two.
type connections struct {
	net.Listener
	most int

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func newConnections(l net.Listener, most int) *connections {
	return &connections{Listener: l, most: most, open: map[net.Conn]bool{}}
}

// Accept is net.Listener's.
func (c *connections) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c.take(conn) {
			return &connection{conn, c}, nil
		}
		conn.Close()
	}
}

// take counts a new connection, unless there are enough.
func (c *connections) take(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		conn.Close() // and let the server find out
	case len(c.open) >= c.most:
		return false
	default:
		c.open[conn] = true
	}
	return true
}

// count is how many are open.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// closeAll closes every connection, and from now on every new one.
func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
	clear(c.open)
}

// connection is one of them.
type connection struct {
	net.Conn
	of *connections
}

// Close is net.Conn's.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
