// Package netlab builds small networks out of network namespaces for the tests
// and the demo: named namespaces, veth pairs between them, addresses, and
// frames put on the wire. It keeps quiet what a Linux host says unasked on a
// new interface (router solicitations, duplicate address detection), so that
// frames can be counted.
//
// Everything here needs root and Linux.
package netlab
