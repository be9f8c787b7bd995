//go:build linux

package main

//go:generate go tool bpf2go -tags linux -go-package main -target bpfel,bpfeb -cflags "-O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" designs designs.bpf.c
