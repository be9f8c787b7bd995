package loader

//go:generate go tool bpf2go -tags linux -go-package loader -target bpfel,bpfeb -type captive -cflags "-O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu" guard guard.bpf.c
