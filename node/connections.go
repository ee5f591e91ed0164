package node

import (
	"net"
	"sync"
)

// connections is a listener that can close what it has accepted. A gRPC server does not, when it stops,
// with connections that have not said hello yet: it waits for each as long as a minute or two.
type connections struct {
	net.Listener

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func newConnections(l net.Listener) *connections {
	return &connections{Listener: l, open: map[net.Conn]bool{}}
}

// Accept is net.Listener's.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
	} else {
		c.open[conn] = true
	}
	return &connection{conn, c}, nil
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
