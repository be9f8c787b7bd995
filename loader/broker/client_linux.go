package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Client is a connection to a Server. It is good for one capture, and for as
// long as one wants to change its filter or know its counts: the socket is not
// shut when the connection ends. Its methods may be called from several goroutines.
type Client struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// answerTime is how long a Client waits for an answer.
const answerTime = 30 * time.Second

// Dial connects to the Server at a path; "" is DefaultSocket.
func Dial(path string) (*Client, error) {
	if path == "" {
		path = DefaultSocket
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &Client{conn: conn}, nil
}

// Capture asks for a captive socket, which the caller closes. It has packets at
// once. The error is a *Refusal if the Server says no.
func (c *Client) Capture(r Request) (*Grant, *os.File, error) {
	a, socket, err := c.ask(opCapture, r)
	if err == nil && (a.Grant == nil || socket == nil) {
		err = errors.New("broker: it gave no socket")
	}
	if err != nil {
		if socket != nil {
			socket.Close()
		}
		return nil, nil, err
	}
	return a.Grant, socket, nil
}

// SetFilter exchanges the filter of the captive socket. The one before stays if
// there is an error.
func (c *Client) SetFilter(f Filter) (Rest, error) {
	a, _, err := c.ask(opFilter, Request{Filter: f})
	if err != nil || a.Rest == nil {
		return Rest{}, err
	}
	return *a.Rest, nil
}

// ClearFilter makes the filter "everything in scope".
func (c *Client) ClearFilter() error {
	_, _, err := c.ask(opClear, Request{})
	return err
}

// Stats are the counts of the captive socket so far.
func (c *Client) Stats() (Stats, error) {
	a, _, err := c.ask(opStats, Request{})
	if err != nil || a.Stats == nil {
		return Stats{}, err
	}
	return *a.Stats, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) ask(op string, r Request) (*answer, *os.File, error) {
	text, err := json.Marshal(message{Version: Version, Op: op, Request: r})
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := c.conn.Write(text); err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	a, socket, err := c.receive()
	if err == nil && a.Error != nil {
		err = a.Error
	}
	return a, socket, err
}

func (c *Client) receive() (*answer, *os.File, error) {
	size, err := c.awaited()
	if err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	buf := make([]byte, size)
	rights := make([]byte, unix.CmsgSpace(4))
	n, rightsLen, _, _, err := c.conn.ReadMsgUnix(buf, rights)
	if err == nil && n == 0 {
		err = errors.New("it closed the connection")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	socket, err := received(rights[:rightsLen])
	if err != nil {
		return nil, nil, err
	}
	a := &answer{}
	if err := json.Unmarshal(buf[:n], a); err != nil {
		return nil, socket, fmt.Errorf("broker: its answer makes no sense: %w", err)
	}
	return a, socket, nil
}

// awaited waits for an answer and tells its size. Memory for the longest one there may
// be would take longer to get than the answer.
func (c *Client) awaited() (size int, err error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	err2 := raw.Read(func(fd uintptr) bool {
		size, _, err = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
	return min(size, maxMessage), errors.Join(err, err2)
}

// received is the descriptor that came, if one did.
func received(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "captive socket"), nil
}
