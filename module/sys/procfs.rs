// SPDX-License-Identifier: GPL-2.0

//! Text files in a network namespace's /proc/net/.

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::Arc;

use super::bindings;
use super::net::Namespace;

/// A file.
pub(crate) trait File {
    /// Of what it tells.
    type Target: Send + Sync;
    /// Its name.
    const NAME: &'static CStr;
    /// Its permissions.
    const MODE: u16;

    /// Writes the whole text. It is called for each reader that starts at the beginning, and again if the text
    /// did not fit into the reader's buffer. `read` returns its error.
    ///
    /// Runs in the reader's task, and may sleep. The reader's own memory is written after it.
    fn show(target: &Self::Target, out: &mut Text<'_>) -> Result;
}

/// The text that one reader gets.
///
/// # Invariants
///
/// The pointer is to a seq_file that is valid, and used through this only, for `'a`.
pub(crate) struct Text<'a>(NonNull<bindings::seq_file>, PhantomData<&'a mut ()>);

impl Text<'_> {
    // Whether something did not fit. seq_file then calls `show` again, with twice the memory.
    fn overflowed(&self) -> bool {
        let file = self.0.as_ptr();
        // SAFETY: by the type's invariant; this is `seq_has_overflowed()`.
        unsafe { (*file).count == (*file).size }
    }
}

impl core::fmt::Write for Text<'_> {
    // An error if the text has overflowed, so that no more of it is made in vain.
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // SAFETY: by the type's invariant; seq_write() copies what fits or marks the overflow.
        match unsafe { bindings::seq_write(self.0.as_ptr(), text.as_ptr().cast(), text.len()) } {
            0 => Ok(()),
            _ => Err(core::fmt::Error),
        }
    }
}

unsafe extern "C" fn show<F: File>(file: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    let Some(file) = NonNull::new(file) else {
        return EINVAL.to_errno();
    };
    // SAFETY: procfs has what `Directory::file` gave it: the directory's target, which that drops only after proc_remove(), which
    // waits for this call.
    let target = unsafe {
        &*bindings::mxp_proc_data(file.as_ptr())
            .cast_const()
            .cast::<F::Target>()
    };
    // INVARIANT: seq_file holds the file's lock during this call.
    let mut text = Text(file, PhantomData);
    match F::show(target, &mut text) {
        // Even after an error: seq_file calls again only if there was none.
        _ if text.overflowed() => 0,
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// A directory in a namespace's /proc/net/, owned by the root of its user namespace, with files about `T`. A file that is open keeps
/// the namespace: so the end of that finds no reader. Dropping this before, as the module goes, removes the directory with all its
/// files, and waits for reads under way, for as long as these wait for the readers' memory; a file that is still open then gives EIO.
///
/// # Invariants
///
/// The entry was not removed, and each file's data is `target`.
pub(crate) struct Directory<T> {
    entry: NonNull<bindings::proc_dir_entry>,
    target: Arc<T>,
}

// SAFETY: procfs has locks of its own; readers share the target.
unsafe impl<T: Send + Sync> Send for Directory<T> {}
// SAFETY: a shared reference gives access to nothing.
unsafe impl<T: Send + Sync> Sync for Directory<T> {}

impl<T: Send + Sync> Directory<T> {
    /// Makes /proc/net/`name`/ in `net`. ENOMEM if that is not possible: for want of memory, or
    /// because the name is taken, of which the kernel warns.
    ///
    /// # Safety
    ///
    /// It is dropped before `net->proc_net` is freed: proc_net_ns_exit().
    pub(super) unsafe fn new(
        net: &Namespace,
        name: &'static CStr,
        target: Arc<T>,
    ) -> Result<Self> {
        // SAFETY: the namespace lives, and procfs copies the name. May sleep: called by tasks.
        let entry = unsafe { bindings::mxp_proc_net_mkdir(net.as_ptr(), name.as_ptr().cast()) };
        Ok(Self {
            entry: NonNull::new(entry).ok_or(ENOMEM)?,
            target,
        })
    }

    /// Adds a file. Errors as in [`Self::new`].
    pub(crate) fn file<F: File<Target = T>>(&mut self) -> Result {
        let data = core::ptr::from_ref::<T>(&self.target).cast_mut();
        // SAFETY: the directory is there, by the invariant, and procfs copies the name.
        //
        // Nothing of the module is called once proc_remove() has returned, so a file that is
        // still open keeps neither `target` nor the module from going. Of the file's operations
        // only `show` is the module's; the others are procfs's. Only reads and seeks lead to `show`,
        // and procfs counts them in the entry while they last (use_pde() in fs/proc/inode.c).
        // proc_remove() closes the entry, so that later ones get an error, waits until none is
        // counted any more, and itself releases the seq_file of each open descriptor, and the reference to the namespace that
        // single_open_net() has taken for it.
        let entry = unsafe {
            bindings::proc_create_net_single(
                F::NAME.as_ptr().cast(),
                F::MODE,
                self.entry.as_ptr(),
                Some(show::<F>),
                data.cast(),
            )
        };
        if entry.is_null() {
            return Err(ENOMEM);
        }
        Ok(())
    }
}

impl<T> Drop for Directory<T> {
    fn drop(&mut self) {
        // SAFETY: made in `new` and not removed yet; its parent is there, by the promise to `new`. May sleep: dropped by
        // tasks. The target is dropped after this.
        unsafe { bindings::proc_remove(self.entry.as_ptr()) };
    }
}
