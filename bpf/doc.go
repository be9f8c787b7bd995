// Package bpf makes classic BPF programs that let a jail capture its own
// packets and nothing else.
//
// # Model
//
// A jail has a [Scope]: its addresses and a policy. [Scope.Match] says in plain
// Go which frames are the jail's own. A user filter is a [Program], compiled
// from a pcap expression or written by hand, which may be any that the system
// takes. [Compile] makes one program of both:
//
//	effective filter = scope AND user filter
//
// which returns exactly what the user filter returns, on frames in scope, and 0
// on all others. It is made of programs, never of text, so that no expression
// can get out of its parentheses or move the offsets of what follows it.
//
// The parts, in the order in which they work:
//
//	scope.go       Scope, Match (the specification) and Expr (the same in pcap's words)
//	prefix.go      Scope to flow graph; tree.go makes trees of addresses
//	live.go        a filter about frames in files, on what a Linux socket shows
//	headerlen.go   a way of its own for IPv4 headers without options
//	inject.go      prefix and user filter in one
//	specialize.go  no test or load whose outcome is known; facts.go is what is known
//	emit.go        flow graph to program
//	prove.go       the check that knows nothing of all that; goal.go is what it proves
//
// text.go, validate.go and vm.go are for any program: tcpdump's notations, the
// two systems' rules, and their interpreters.
//
// # Verdicts
//
// A program's verdict is the number of bytes of the frame to keep, in bytes
// from the start of what the program sees; 0 rejects the frame. A load from
// behind the end of the frame rejects it.
//
// # Frames
//
// Loads are big-endian; offsets are in bytes from the start of the link-level
// header. A [View] says which header that is, and whether the program meets the
// frame as it will stand in a capture file or on a live Linux socket, where a
// VLAN tag is metadata and a cooked frame has no header yet.
//
// # Security considerations
//
// What attaches programs should attach none that [Prove] has not accepted:
// Prove walks the finished program, and shares no code with what made it. It
// takes the kernel's word for metadata (the packet type, the tag), and for that
// a frame is what the interface's link type says.
//
// A verdict is not a limit: sockets can be told to keep more of an accepted
// frame than the verdict says. A scope decides by accepting or rejecting only.
//
// A program is about one link type. On a socket that is bound to another
// interface its offsets mean something else; see package loader for what keeps
// a socket where it is.
package bpf
