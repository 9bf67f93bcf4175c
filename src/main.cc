#include "cli/cli.h"

int main(int argc, char** argv) { return leat::cli::Main(argc, argv); }
