// The plain build looks at no access.
#include "block.h"

namespace emulator {

void check_copy(const float*, const float*, void*) {}
void check_landing(const float*, void*) {}
void check_atomic(const void*) {}

}  // namespace emulator
