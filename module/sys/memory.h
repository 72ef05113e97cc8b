/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the machine's memory is used for, as far as the kernel knows: the probe only.
 */
#ifndef MXP_MEMORY_H
#define MXP_MEMORY_H

#include <linux/types.h>

enum {
	MXP_AREA_NAME = 48,
};

/* Memory in one piece that is used for one thing. */
struct mxp_area {
	u64 address;
	u64 bytes;
	/* Bytes of one object; all bytes if there is only one. */
	u32 object;
	u8 name[MXP_AREA_NAME];
};

/*
 * Each fills in at most `room` areas and returns how many.
 *
 * mxp_slabs() begins at page frame *frame, and leaves there the frame to go on with; it returns 0 at the
 * end.
 */
unsigned int mxp_slabs(unsigned long *frame, struct mxp_area *areas, unsigned int room);
unsigned int mxp_stacks(struct mxp_area *areas, unsigned int room);
bool mxp_may_see_addresses(void);
unsigned long mxp_per_cpu_offset(unsigned int cpu);

#endif
