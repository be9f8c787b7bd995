package jail

//go:generate clang --target=x86_64-linux-gnu -I/usr/include/x86_64-linux-gnu -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -static -nostdlib -fuse-ld=lld -Wl,-z,noseparate-code -Wl,--build-id=none -s -o init_amd64.bin init.c
//go:generate clang --target=aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -static -nostdlib -fuse-ld=lld -Wl,-z,noseparate-code -Wl,--build-id=none -s -o init_arm64.bin init.c
