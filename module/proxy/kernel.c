// SPDX-License-Identifier: GPL-2.0
/* An object file belongs to one module: each has its own copy of these functions. */
#include "../sys/kernel.c"
