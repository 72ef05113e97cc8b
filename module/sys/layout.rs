// SPDX-License-Identifier: GPL-2.0

//! Whether bindgen has the kernel's types laid out as the compiler has. Where it has not, this does
//! not compile, and the field wants an offset from `kernel.h`, as those of `struct net` have it.

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
