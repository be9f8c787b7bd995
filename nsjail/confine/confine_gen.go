package confine

//go:generate go tool bpf2go -tags linux -go-package confine -target bpfel,bpfeb -cflags "-O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu" rules confine.bpf.c
