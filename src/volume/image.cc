#include "volume/image.h"

namespace leat::volume {}
