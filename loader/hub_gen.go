package loader

//go:generate go tool bpf2go -tags linux -go-package loader -target bpfel,bpfeb -type about -type count -type sharers -cflags "-O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" hub hub.bpf.c
