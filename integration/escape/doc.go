// Package escape holds the attempts to get out of a captive socket: to see a
// frame that is not the jail's, to send one, to take other sockets' frames, or
// to harm who keeps the socket captive. Each has a name, and must fail.
//
// # How
//
// The attackers are processes: the test binary executes itself as nobody,
//   - run: under `jailtap run`, with its seccomp filter and agent;
//   - held: without a seccomp filter, with captive sockets that a loader.Warden
//     in another process hands it by SCM_RIGHTS, as a broker does;
//   - broker: as held, but a `jailtap serve` hands them over;
//   - passed: as held, but the sockets come from a process under `jailtap run`.
//
// All are in the namespace of a host, whose interfaces carry ten times as many
// foreign frames as the jail's. An attempt says what it met, and whether it
// failed is decided elsewhere: by observers at the other end of every interface,
// who look for frames with the attacker's marker; by the test, which looks into
// every frame and byte that the attacker got hold of; and by two neighbours, a
// monitor with a fanout group and another jail's captive socket, to which none
// of their numbered frames may be missing.
//
// For most attempts there is a control: the same attempt by root with a plain
// packet socket, which must succeed, and must be noticed.
//
// # What is no escape
//
// A frame with the jail's address as source or destination is the jail's,
// whoever has sent it: who can forge addresses can show the jail what they like.
// Multicast and broadcast are everybody's. Ordinary sockets (UDP, TCP) are not
// what this is about: a process may use them as any other of its user may. And
// two jails' commands under one user are open to each other as any two processes
// of one user are (ptrace(2)).
package escape
