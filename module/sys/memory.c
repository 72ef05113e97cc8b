// SPDX-License-Identifier: GPL-2.0
/*
 * What the machine's memory is used for.
 *
 * The only exported function that tells the cache of a slab prints to the console (mem_dump_obj()). So this
 * reads the allocator's own structures, by the allocator's own header: if that changes, this does not
 * build.
 */
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/percpu.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <mm/slab.h>
#include "memory.h"

static unsigned long frames(void)
{
	unsigned long end = 0;
	int node;

	for_each_online_node(node)
		end = max(end, node_end_pfn(node));
	return end;
}

/*
 * Meanwhile the slab may be given back, and its cache destroyed. So the pointer to the cache may be stale, and
 * is read through by copy_from_kernel_nofault() only.
 */
static bool describe(struct slab *slab, struct mxp_area *area)
{
	struct kmem_cache *cache = READ_ONCE(slab->slab_cache);
	const char *name;

	if (copy_from_kernel_nofault(&name, &cache->name, sizeof(name)) ||
	    copy_from_kernel_nofault(&area->object, &cache->size, sizeof(area->object)))
		return false;
	for (int i = 0; i < MXP_AREA_NAME - 1; i++) {
		if (copy_from_kernel_nofault(&area->name[i], &name[i], 1))
			return false;
		if (!area->name[i])
			break;
	}
	area->address = (unsigned long)slab_address(slab);
	area->bytes = slab_size(slab);
	return area->object;
}

unsigned int mxp_slabs(unsigned long *frame, struct mxp_area *areas, unsigned int room)
{
	unsigned long end = frames();
	unsigned int count = 0;

	memset(areas, 0, room * sizeof(*areas));
	for (; *frame < end && count < room; (*frame)++) {
		struct slab *slab;

		if (!pfn_valid(*frame))
			continue;
		slab = virt_to_slab(page_to_virt(pfn_to_page(*frame)));
		if (!slab || !describe(slab, &areas[count]))
			continue;
		*frame += (areas[count].bytes >> PAGE_SHIFT) - 1;
		count++;
	}
	return count;
}

unsigned int mxp_stacks(struct mxp_area *areas, unsigned int room)
{
	struct task_struct *process, *thread;
	unsigned int count = 0;

	memset(areas, 0, room * sizeof(*areas));
	rcu_read_lock();
	for_each_process_thread(process, thread) {
		void *stack = task_stack_page(thread);

		if (!stack || count == room)
			continue;
		areas[count].address = (unsigned long)stack;
		areas[count].bytes = THREAD_SIZE;
		areas[count].object = THREAD_SIZE;
		strscpy((char *)areas[count].name, thread->comm, MXP_AREA_NAME);
		count++;
	}
	rcu_read_unlock();
	return count;
}

bool mxp_may_see_addresses(void)
{
	return capable(CAP_SYSLOG);
}

unsigned long mxp_per_cpu_offset(unsigned int cpu)
{
	return per_cpu_offset(cpu);
}
