#include <expected>
int main(){}
