package broker_test

import (
	"fmt"
	"log"

	"jailtap/loader/broker"
)

// A process without privileges captures what its jail says on port 53.
func Example() {
	client, err := broker.Dial(broker.DefaultSocket)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	grant, socket, err := client.Capture(broker.Request{
		Interface: "eth0",
		Filter:    broker.Filter{Expression: "udp port 53"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer socket.Close()
	fmt.Println("scope:", grant.Scope)
	frame := make([]byte, 65536)
	for {
		n, err := socket.Read(frame)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d bytes\n", n)
	}
}
