// Sockets of both sides: the client's connection out of HTTP, and TLS and datagrams with the peer that
// the header X-Port names. The path says what.
package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"phasor"
	"phasor/cosocket"
	"phasor/downstream"
	"phasor/errorlog"
)

func init() {
	phasor.Content(func(r *phasor.Request) error {
		switch r.Path() {
		case "/ws":
			return webSocket(r)
		case "/lines":
			return lines(r)
		case "/headless":
			return headless(r)
		case "/body":
			return body(r)
		case "/leaves":
			return leaves(r)
		case "/slow":
			return slow(r)
		}
		peer := "127.0.0.1:" + r.Header("X-Port")
		text, err := back(r.Context(), r.Path(), peer, r.Header("X-Name"))
		if err != nil {
			text = fmt.Sprint("error: ", err)
		}
		return r.Text(text)
	})
}

func main() {}

// Sends each message of a WebSocket back, until one says that it is the last.
func webSocket(r *phasor.Request) error {
	sum := sha1.Sum([]byte(r.Header("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	client, err := downstream.Upgrade(r, "websocket",
		phasor.Header{Name: "Sec-WebSocket-Accept", Value: base64.StdEncoding.EncodeToString(sum[:])})
	if err != nil {
		return phasor.Exit(426)
	}
	reader := bufio.NewReader(client)
	for {
		kind, payload, err := frame(reader)
		if err != nil {
			errorlog.Noticef("the websocket ended: %v", err)
			return nil
		}
		if _, err := client.Write(append([]byte{kind, byte(len(payload))}, payload...)); err != nil || kind == 0x88 {
			return err
		}
	}
}

// A masked frame of at most 125 bytes.
func frame(reader io.Reader) (byte, []byte, error) {
	head := make([]byte, 6)
	if _, err := io.ReadFull(reader, head); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(reader, payload); err != nil {
		return 0, nil, err
	}
	for place := range payload {
		payload[place] ^= head[2+place%4]
	}
	return head[0], payload, nil
}

// One goroutine reads lines, another one writes them: what is sent first does not wait for what is
// received.
func lines(r *phasor.Request) error {
	client, err := downstream.Upgrade(r, "lines", phasor.Header{Name: "X-Mine", Value: "1"})
	if err != nil {
		return err
	}
	came := make(chan string)
	go func() {
		defer close(came)
		for scanner := bufio.NewScanner(client); scanner.Scan(); {
			came <- scanner.Text()
		}
	}()
	if _, err := io.WriteString(client, "ready\n"); err != nil {
		return err
	}
	for line := range came {
		if _, err := io.WriteString(client, line+"\n"); err != nil {
			return err
		}
	}
	_, again := downstream.Take(r)
	_, err = fmt.Fprintf(client, "end: %v, %v, %v\n", again, errors.Is(again, downstream.ErrTaken), client.RemoteAddr().Network())
	return err
}

// The whole answer by hand; net/http's own reader and writer work on the connection.
func headless(r *phasor.Request) error {
	client, err := downstream.Take(r)
	if err != nil {
		return err
	}
	answer := http.Response{
		StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: 2, Close: true,
		Body: io.NopCloser(strings.NewReader("ok")),
	}
	if err := answer.Write(client); err != nil {
		return err
	}
	return client.Close()
}

func body(r *phasor.Request) error {
	body, err := downstream.Body(r)
	if err != nil {
		return r.Text(err.Error())
	}
	bytes, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	_, written := body.Write([]byte("x"))
	return r.Text(fmt.Sprint(len(bytes), " ", written))
}

// Waits for a client that says nothing, for a moment and then for as long as it is there.
func slow(r *phasor.Request) error {
	client, err := downstream.Take(r)
	if err != nil {
		return err
	}
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, late := client.Read(make([]byte, 1))
	_ = client.SetDeadline(time.Time{})
	_, _ = fmt.Fprintln(client, "late:", errors.Is(late, os.ErrDeadlineExceeded))
	_, err = client.Read(make([]byte, 1))
	errorlog.Noticef("slow: %v", err)
	return nil
}

// Has a stream, datagrams and three goroutines that wait; the client leaves meanwhile.
func leaves(r *phasor.Request) error {
	ctx, peer := r.Context(), "127.0.0.1:"+r.Header("X-Port")
	stream, err := cosocket.Dial(ctx, "tcp", peer)
	if err != nil {
		return err
	}
	datagrams, err := cosocket.Dial(ctx, "udp", peer)
	if err != nil {
		return err
	}
	for _, conn := range []net.Conn{stream, datagrams} {
		go func() { _, _ = conn.Read(make([]byte, 1)) }()
	}
	if _, err := io.WriteString(stream, "here"); err != nil {
		return err
	}
	err = phasor.Sleep(ctx, time.Hour)
	errorlog.Noticef("went on: %v", err)
	return err
}

func back(ctx context.Context, path, peer, name string) (string, error) {
	switch path {
	case "/tls":
		return overTLS(ctx, peer, name)
	case "/udp":
		return udp(ctx, peer)
	default:
		_, err := cosocket.Dial(ctx, "ip", peer)
		return "", err
	}
}

func ask(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(text)), err
}

func overTLS(ctx context.Context, peer, name string) (string, error) {
	open := func(pool string, session *cosocket.Session) (*cosocket.Conn, string, error) {
		conn, err := cosocket.Connect(ctx, "tcp", peer, cosocket.Options{Pool: pool})
		if err != nil {
			return nil, "", err
		}
		if err := conn.Handshake(ctx, cosocket.TLS{ServerName: name}, session); err != nil {
			return nil, "", err
		}
		text, err := ask(conn)
		return conn, text, err
	}
	first, one, err := open("tls", nil)
	if err != nil {
		return "", err
	}
	if err := first.KeepAlive(10*time.Second, 0); err != nil {
		return "", err
	}
	again, two, err := open("tls", nil)
	if err != nil {
		return "", err
	}
	_, three, err := open("other", again.Session())
	return fmt.Sprintf("%s; %d %s; %s", one, again.Reused(), two, three), err
}

// The peer sends every datagram back but `-`.
func udp(ctx context.Context, peer string) (string, error) {
	conn, err := cosocket.Dial(ctx, "udp", peer)
	if err != nil {
		return "", err
	}
	into := make([]byte, 5)
	for _, sent := range []string{"hello", "cut off"} {
		if _, err := io.WriteString(conn, sent); err != nil {
			return "", err
		}
		if _, err := io.ReadFull(conn, into); err != nil {
			return "", err
		}
	}
	// One goroutine waits for what never comes, until another one closes.
	_, _ = io.WriteString(conn, "-")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, late := conn.Read(into)
	_ = conn.SetReadDeadline(time.Time{})
	closed := make(chan error)
	go func() {
		_, err := conn.Read(into)
		closed <- err
	}()
	_ = phasor.Sleep(ctx, time.Millisecond)
	_ = conn.Close()
	err = <-closed
	return fmt.Sprintf("%s %v %v", into, errors.Is(late, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed)), nil
}
