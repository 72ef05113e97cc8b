// SPDX-License-Identifier: GPL-2.0
/* Weighs the packets of each namespace's forward hook, and tells of the sum. */

#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>

static int weight = 1;
module_param(weight, int, 0444);
MODULE_PARM_DESC(weight, "What each packet counts for");

static atomic64_t packets;

static unsigned int count(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	atomic64_add(weight, &packets);
	return NF_ACCEPT;
}

static const struct nf_hook_ops hook = {
	.hook = count,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_FORWARD,
	.priority = NF_IP_PRI_FILTER,
};

static int __net_init enter(struct net *net)
{
	return nf_register_net_hook(net, &hook);
}

static void __net_exit leave(struct net *net)
{
	nf_unregister_net_hook(net, &hook);
}

static struct pernet_operations operations = {
	.init = enter,
	.exit = leave,
};

static int show(struct seq_file *file, void *data)
{
	seq_printf(file, "weighed %lld\n", atomic64_read(&packets));
	return 0;
}

static int __init load(void)
{
	int error;

	if (!proc_create_single("own-weight", 0444, NULL, show))
		return -ENOMEM;
	error = register_pernet_subsys(&operations);
	if (error)
		remove_proc_entry("own-weight", NULL);
	return error;
}

static void __exit unload(void)
{
	unregister_pernet_subsys(&operations);
	remove_proc_entry("own-weight", NULL);
}

module_init(load);
module_exit(unload);
MODULE_DESCRIPTION("Counts forwarded packets");
MODULE_LICENSE("GPL");
