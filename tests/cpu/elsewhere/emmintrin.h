#error "intrinsics of x86-64 in what every processor compiles"
