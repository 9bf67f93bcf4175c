// A program for 32-bit Linux without large file support, as old ones are: what does not fit into 32
// bits is an error to it. reader32 DIR FILE: counts DIR's names, stats and reads FILE; prints
// names, bytes and a sum. No library, so that it is built by any g++ for x86-64: g++ -m32 -nostdlib
// -static -ffreestanding -fno-pie -no-pie -fno-stack-protector
namespace {

using u32 = unsigned;
char buffer[65536];

int Call(int number, u32 a, u32 b = 0, u32 c = 0) {
  int result;
  asm volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c) : "memory");
  return result;
}
u32 Address(const void* p) { return reinterpret_cast<u32>(p); }

[[noreturn]] void Exit(int status) {
  for (;;) Call(1, static_cast<u32>(status));
}
int Must(int result, int step) {
  if (result < 0) Exit(step);
  return result;
}
void Print(u32 number) {
  char text[12];
  int at = sizeof(text);
  text[--at] = '\n';
  do {
    text[--at] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number > 0);
  Call(4, 1, Address(text + at), sizeof(text) - static_cast<u32>(at));
}

}  // namespace

extern "C" [[noreturn]] void Run(char** arguments) {
  const int dir = Must(Call(5, Address(arguments[1]), 0200000), 10);  // open, O_DIRECTORY
  u32 names = 0;
  for (int n; (n = Must(Call(141, static_cast<u32>(dir), Address(buffer), sizeof(buffer)), 11)) >
              0;) {  // getdents
    for (int at = 0; at < n; at += *reinterpret_cast<unsigned short*>(buffer + at + 8)) ++names;
  }
  const int file = Must(Call(5, Address(arguments[2])), 12);
  Must(Call(106, Address(arguments[2]), Address(buffer)), 13);  // stat of 32 bits
  u32 bytes = 0, sum = 0;
  for (int n;
       (n = Must(Call(3, static_cast<u32>(file), Address(buffer), sizeof(buffer)), 14)) > 0;) {
    for (int i = 0; i < n; ++i) sum = sum * 31 + static_cast<unsigned char>(buffer[i]);
    bytes += static_cast<u32>(n);
  }
  Must(Call(19, static_cast<u32>(file), 1, 0), 15);  // lseek
  Print(names);
  Print(bytes);
  Print(sum);
  Exit(0);
}

asm(".globl _start\n_start: lea 4(%esp), %eax\n push %eax\n call Run\n");
