// SPDX-License-Identifier: GPL-2.0

//! Miscellaneous character devices: a file in /dev whose every open descriptor has a context.

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::str::CStr;

use super::bindings;

/// Copies bytes to the caller of a system call, and returns how many of them fit.
pub(crate) type ToUser<'a> = &'a mut dyn FnMut(&[u8]) -> Result<usize>;

/// Copies bytes from the caller of a system call.
pub(crate) type FromUser<'a> = &'a dyn Fn(&mut [u8]) -> Result;

/// What a device file does. All functions may sleep.
pub(crate) trait Device: Send + Sync {
    /// What belongs to one open descriptor; dropping it is closing.
    type Context: Send + Sync;

    /// The most bytes that one `write` takes.
    const MAX_WRITE: usize;

    /// A descriptor is opened.
    fn open(&self) -> Result<Self::Context>;

    /// All bytes of one `write`.
    fn write(&self, context: &Self::Context, bytes: &[u8]) -> Result;

    /// A `read` at `position`: passes the bytes from there on to `to_user`, and returns its result.
    fn read(&self, context: &Self::Context, position: usize, to_user: ToUser<'_>) -> Result<usize>;

    /// An `ioctl`; `from_user` reads its argument, and `to_user` writes it.
    fn ioctl(
        &self,
        context: &Self::Context,
        command: u32,
        from_user: FromUser<'_>,
        to_user: ToUser<'_>,
    ) -> Result<usize>;
}

#[repr(C)]
struct Inner<D> {
    // First: misc_open() leaves a pointer to it in the file, which leads here.
    misc: bindings::miscdevice,
    operations: bindings::file_operations,
    device: D,
}

struct Open<D: Device> {
    inner: *const Inner<D>,
    context: D::Context,
}

/// A device file; it goes when this is dropped.
pub(crate) struct Registered<D: Device>(KBox<Inner<D>>);

// SAFETY: registering and unregistering may happen in any task.
unsafe impl<D: Device> Send for Registered<D> {}
// SAFETY: gives shared references only.
unsafe impl<D: Device> Sync for Registered<D> {}

impl<D: Device> Registered<D> {
    /// Makes /dev/`name`. The module cannot be unloaded while a descriptor is open.
    pub(crate) fn new(module: &'static ThisModule, name: &'static CStr, device: D) -> Result<Self> {
        const MISC_DYNAMIC_MINOR: c_int = 255;
        let operations = bindings::file_operations {
            owner: module.as_ptr().cast(),
            open: Some(open::<D>),
            release: Some(release::<D>),
            read: Some(read::<D>),
            write: Some(write::<D>),
            // So that a snapshot can be read again from the start.
            llseek: Some(bindings::default_llseek),
            unlocked_ioctl: Some(ioctl::<D>),
            // The records are the same for 32-bit programs.
            compat_ioctl: Some(ioctl::<D>),
            // SAFETY: all bytes zero is a value of this C struct.
            ..unsafe { core::mem::zeroed() }
        };
        let misc = bindings::miscdevice {
            minor: MISC_DYNAMIC_MINOR,
            name: name.as_ptr().cast(),
            // SAFETY: all bytes zero is a value of this C struct.
            ..unsafe { core::mem::zeroed() }
        };
        let mut inner = KBox::new(
            Inner {
                misc,
                operations,
                device,
            },
            GFP_KERNEL,
        )?;
        inner.misc.fops = &raw const inner.operations;
        // SAFETY: all that the device refers to lies in the box, until it is unregistered.
        kernel::error::to_result(unsafe { bindings::misc_register(&mut inner.misc) })?;
        Ok(Self(inner))
    }
}

impl<D: Device> Drop for Registered<D> {
    fn drop(&mut self) {
        // SAFETY: registered in `new`. No descriptor is open: each would hold the module.
        unsafe { bindings::misc_deregister(&mut self.0.misc) };
    }
}

fn errno(error: Error) -> isize {
    error.to_errno() as isize
}

unsafe extern "C" fn open<D: Device>(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: misc_open() leaves the miscdevice here, which is the first field of an `Inner<D>`
    // that lives as long as the module, which the file holds.
    let inner = unsafe { (*file).private_data.cast::<Inner<D>>().cast_const() };
    // SAFETY: as above.
    let context = match unsafe { (*inner).device.open() } {
        Ok(context) => context,
        Err(error) => return error.to_errno(),
    };
    match KBox::new(Open::<D> { inner, context }, GFP_KERNEL) {
        Ok(open) => {
            // SAFETY: the file is being opened by us alone.
            unsafe { (*file).private_data = KBox::into_raw(open).cast::<c_void>() };
            0
        }
        Err(_) => ENOMEM.to_errno(),
    }
}

unsafe extern "C" fn release<D: Device>(
    _: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: `open` left a box here, and the file is not used any more.
    drop(unsafe { KBox::from_raw((*file).private_data.cast::<Open<D>>()) });
    0
}

// The device and the context of an open file.
unsafe fn opened<'a, D: Device>(file: *mut bindings::file) -> (&'a D, &'a D::Context) {
    // SAFETY: by the caller: `open` left a box here, which stays until `release`.
    let open = unsafe { &*(*file).private_data.cast::<Open<D>>() };
    // SAFETY: see `open`.
    (unsafe { &(*open.inner).device }, &open.context)
}

fn to_user(buffer: *mut c_char, size: usize) -> impl FnMut(&[u8]) -> Result<usize> {
    move |bytes| {
        let size = size.min(bytes.len());
        // SAFETY: `bytes` has at least `size` bytes; the user's address is checked by the copy.
        match unsafe {
            bindings::mxp_copy_to_user(buffer.cast(), bytes.as_ptr().cast(), size as c_ulong)
        } {
            0 => Ok(size),
            _ => Err(EFAULT),
        }
    }
}

unsafe extern "C" fn read<D: Device>(
    file: *mut bindings::file,
    buffer: *mut c_char,
    size: usize,
    position: *mut bindings::loff_t,
) -> isize {
    // SAFETY: the file is open.
    let (device, context) = unsafe { opened::<D>(file) };
    // SAFETY: vfs_read() gives a valid position.
    let Ok(at) = usize::try_from(unsafe { *position }) else {
        return errno(EINVAL);
    };
    match device.read(context, at, &mut to_user(buffer, size)) {
        Ok(count) => {
            // SAFETY: as above.
            unsafe { *position = (*position).wrapping_add(count as bindings::loff_t) };
            count as isize
        }
        Err(error) => errno(error),
    }
}

unsafe extern "C" fn write<D: Device>(
    file: *mut bindings::file,
    buffer: *const c_char,
    size: usize,
    _: *mut bindings::loff_t,
) -> isize {
    if size > D::MAX_WRITE {
        return errno(E2BIG);
    }
    // SAFETY: the file is open.
    let (device, context) = unsafe { opened::<D>(file) };
    let Ok(mut bytes) = KVVec::<u8>::with_capacity(size, GFP_KERNEL_ACCOUNT) else {
        return errno(ENOMEM);
    };
    for _ in 0..size {
        // Within the capacity.
        if bytes.push(0, GFP_KERNEL_ACCOUNT).is_err() {
            return errno(ENOMEM);
        }
    }
    // SAFETY: the vector has `size` bytes; the user's address is checked by the copy.
    if unsafe {
        bindings::mxp_copy_from_user(bytes.as_mut_ptr().cast(), buffer.cast(), size as c_ulong)
    } != 0
    {
        return errno(EFAULT);
    }
    match device.write(context, &bytes) {
        Ok(()) => size as isize,
        Err(error) => errno(error),
    }
}

unsafe extern "C" fn ioctl<D: Device>(
    file: *mut bindings::file,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: the file is open.
    let (device, context) = unsafe { opened::<D>(file) };
    let buffer = core::ptr::without_provenance_mut::<c_char>(argument as usize);
    let from_user = |bytes: &mut [u8]| {
        // SAFETY: `bytes` has room for so many; the user's address is checked by the copy.
        let left = unsafe {
            bindings::mxp_copy_from_user(
                bytes.as_mut_ptr().cast(),
                buffer.cast(),
                bytes.len() as c_ulong,
            )
        };
        match left {
            0 => Ok(()),
            _ => Err(EFAULT),
        }
    };
    match device.ioctl(context, command, &from_user, &mut to_user(buffer, usize::MAX)) {
        Ok(_) => 0,
        Err(error) => errno(error) as c_long,
    }
}
