// SPDX-License-Identifier: GPL-2.0

//! Asserts that bindgen lays out the kernel's types as the compiler does. Where it does not, this does not
//! compile, and the field needs an offset from `kernel.h`, as the fields of `struct net` have.

use core::mem::offset_of;

use super::bindings;

macro_rules! same {
    ($($type:ident.$field:ident: $offset:ident,)*) => {
        const _: () = {
            $(assert!(offset_of!(bindings::$type, $field) == bindings::$offset as usize);)*
        };
    };
}

same! {
    net_device.ifindex: MXP_DEVICE_IFINDEX,
    net_device.name: MXP_DEVICE_NAME,
    dst_entry.error: MXP_DST_ERROR,
    dst_entry.obsolete: MXP_DST_OBSOLETE,
    rtable.dst: MXP_RTABLE_DST,
    rtable.rt_genid: MXP_RTABLE_GENID,
    rt6_info.dst: MXP_RT6_DST,
    rt6_info.rt6i_flags: MXP_RT6_FLAGS,
    rt6_info.from: MXP_RT6_FROM,
    fib6_info.fib6_flags: MXP_FIB6_FLAGS,
    fib6_info.fib6_node: MXP_FIB6_NODE,
    skb_shared_info.dataref: MXP_SHARED_DATAREF,
    sk_buff._nfct: MXP_SKB_NFCT,
    file.private_data: MXP_FILE_PRIVATE,
}
