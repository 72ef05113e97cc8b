// SPDX-License-Identifier: MIT OR Apache-2.0

//! What QEMU offers its plugins, declared by hand after its `include/qemu/qemu-plugin.h`: in version 1
//! of that interface (QEMU 7.2) and in versions 2 to 5 (QEMU 9.0 to 10.x).
//!
//! Functions are looked up when the plugin is loaded: so this crate links without QEMU, and a function
//! that has changed can be told by the version.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::ptr;

/// `qemu_plugin_id_t`.
pub type Id = u64;
/// `qemu_plugin_meminfo_t`.
pub type MemoryInfo = u32;
/// `qemu_plugin_simple_cb_t`.
pub type SimpleCallback = extern "C" fn(Id);
/// `qemu_plugin_vcpu_tb_trans_cb_t`.
pub type TranslationCallback = extern "C" fn(Id, Block);
/// `qemu_plugin_vcpu_udata_cb_t`.
pub type ExecutionCallback = extern "C" fn(c_uint, *mut c_void);
/// `qemu_plugin_vcpu_mem_cb_t`.
pub type MemoryCallback = extern "C" fn(c_uint, MemoryInfo, u64, *mut c_void);

/// `struct qemu_plugin_tb *`, a translation block, valid during its translation.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Block(*mut c_void);

/// `struct qemu_plugin_insn *`, an instruction of such a block.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Insn(*mut c_void);

/// `qemu_info_t`.
#[repr(C)]
pub struct Info {
    _target_name: *const c_char,
    _min_version: c_int,
    /// The version of the interface that QEMU speaks.
    pub version: c_int,
    /// Whether it emulates a whole machine.
    pub system_emulation: bool,
    /// How many CPUs the machine has at first.
    pub cpus: c_int,
    _max_cpus: c_int,
}

/// `QEMU_PLUGIN_CB_NO_REGS`: callbacks do not look at registers.
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_MEM_RW`: both reads and writes are of interest.
const READS_AND_WRITES: c_int = 3;
/// From this version of the interface on the bytes of an instruction are copied, not pointed at.
const COPYING: c_int = 3;

#[derive(Clone, Copy)]
enum InstructionData {
    Pointing(unsafe extern "C" fn(Insn) -> *const u8),
    Copying(unsafe extern "C" fn(Insn, *mut u8, usize) -> usize),
}

/// QEMU's functions.
pub struct Api {
    reset: unsafe extern "C" fn(Id, SimpleCallback),
    register_translation: unsafe extern "C" fn(Id, TranslationCallback),
    register_execution: unsafe extern "C" fn(Insn, ExecutionCallback, c_int, *mut c_void),
    register_memory: unsafe extern "C" fn(Insn, MemoryCallback, c_int, c_int, *mut c_void),
    block_length: unsafe extern "C" fn(Block) -> usize,
    block_instruction: unsafe extern "C" fn(Block, usize) -> Insn,
    instruction_data: InstructionData,
    instruction_size: unsafe extern "C" fn(Insn) -> usize,
    instruction_address: unsafe extern "C" fn(Insn) -> u64,
    instruction_host_address: unsafe extern "C" fn(Insn) -> *mut c_void,
    size_shift: unsafe extern "C" fn(MemoryInfo) -> c_uint,
    is_store: unsafe extern "C" fn(MemoryInfo) -> bool,
    hardware_address: unsafe extern "C" fn(MemoryInfo, u64) -> *mut c_void,
    is_io: unsafe extern "C" fn(*const c_void) -> bool,
    physical_address: unsafe extern "C" fn(*const c_void) -> u64,
}

/// The address of a function of the program that has loaded this library.
fn symbol(name: &CStr) -> Option<ptr::NonNull<c_void>> {
    // SAFETY: the name is a string of C's; no memory is touched but the dynamic linker's own.
    ptr::NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

/// A function of the program that has loaded this library.
///
/// # Safety
///
/// `F` is the type of the function that has this name there.
unsafe fn function<F: Copy>(name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let found = symbol(name);
    let found = found.ok_or_else(|| format!("this QEMU has no {}", name.to_string_lossy()))?;
    // SAFETY: the caller's promise.
    Ok(unsafe { std::mem::transmute_copy(&found) })
}

impl Api {
    /// Looks the functions up, in a QEMU that speaks this version of the interface.
    pub fn load(version: c_int) -> Result<Self, String> {
        // SAFETY: the fields' types are those of the functions in QEMU's header, in the versions that the
        // module's documentation names.
        Ok(unsafe {
            Self {
                reset: function(c"qemu_plugin_reset")?,
                register_translation: function(c"qemu_plugin_register_vcpu_tb_trans_cb")?,
                register_execution: function(c"qemu_plugin_register_vcpu_insn_exec_cb")?,
                register_memory: function(c"qemu_plugin_register_vcpu_mem_cb")?,
                block_length: function(c"qemu_plugin_tb_n_insns")?,
                block_instruction: function(c"qemu_plugin_tb_get_insn")?,
                instruction_data: if version < COPYING {
                    InstructionData::Pointing(function(c"qemu_plugin_insn_data")?)
                } else {
                    InstructionData::Copying(function(c"qemu_plugin_insn_data")?)
                },
                instruction_size: function(c"qemu_plugin_insn_size")?,
                instruction_address: function(c"qemu_plugin_insn_vaddr")?,
                instruction_host_address: function(c"qemu_plugin_insn_haddr")?,
                size_shift: function(c"qemu_plugin_mem_size_shift")?,
                is_store: function(c"qemu_plugin_mem_is_store")?,
                hardware_address: function(c"qemu_plugin_get_hwaddr")?,
                is_io: function(c"qemu_plugin_hwaddr_is_io")?,
                physical_address: function(c"qemu_plugin_hwaddr_phys_addr")?,
            }
        })
    }

    /// Takes all callbacks back and throws all translations away, soon; then calls `then`. Called from
    /// a callback, by whom no lock may be held that `then` takes.
    pub fn reset(&self, id: Id, then: SimpleCallback) {
        // SAFETY: `id` is this plugin's.
        unsafe { (self.reset)(id, then) }
    }

    /// Has each block that is translated from now on told.
    pub fn on_translation(&self, id: Id, callback: TranslationCallback) {
        // SAFETY: `id` is this plugin's.
        unsafe { (self.register_translation)(id, callback) }
    }

    /// The instructions of a block that is being translated.
    pub fn instructions(&self, block: Block) -> impl Iterator<Item = Insn> + '_ {
        // SAFETY: only QEMU makes blocks, and hands them to the callback of their translation, whose
        // caller this is.
        let length = unsafe { (self.block_length)(block) };
        // SAFETY: the same, and indices are below the length.
        (0..length).map(move |index| unsafe { (self.block_instruction)(block, index) })
    }

    /// Puts the bytes of an instruction into `bytes`; those that it has.
    pub fn bytes<'a>(&self, insn: Insn, bytes: &'a mut [u8]) -> &'a [u8] {
        // SAFETY: an instruction of a block that is being translated, as all are.
        let size = unsafe { (self.instruction_size)(insn) }.min(bytes.len());
        let bytes = &mut bytes[..size];
        match self.instruction_data {
            InstructionData::Pointing(data) => {
                // SAFETY: as above; it points at as many bytes as the instruction has.
                bytes.copy_from_slice(unsafe { std::slice::from_raw_parts(data(insn), size) });
            }
            InstructionData::Copying(data) => {
                // SAFETY: as above; there is room for `size` bytes.
                unsafe { data(insn, bytes.as_mut_ptr(), size) };
            }
        }
        bytes
    }

    /// The virtual address of an instruction.
    pub fn address(&self, insn: Insn) -> u64 {
        // SAFETY: an instruction of a block that is being translated, as all are.
        unsafe { (self.instruction_address)(insn) }
    }

    /// Where an instruction lies in QEMU's own memory; 0 if it does not.
    pub fn host_address(&self, insn: Insn) -> u64 {
        // SAFETY: the same. The pointer is not followed.
        unsafe { (self.instruction_host_address)(insn) as u64 }
    }

    /// Has each execution of an instruction told, before it, with `data`.
    pub fn on_execution(&self, insn: Insn, callback: ExecutionCallback, data: usize) {
        let data = ptr::without_provenance_mut(data);
        // SAFETY: the same. QEMU hands `data` on and does not look at it.
        unsafe { (self.register_execution)(insn, callback, NO_REGISTERS, data) }
    }

    /// Has each access of an instruction to memory told, behind it, with `data`.
    pub fn on_access(&self, insn: Insn, callback: MemoryCallback, data: usize) {
        let data = ptr::without_provenance_mut(data);
        // SAFETY: the same.
        unsafe { (self.register_memory)(insn, callback, NO_REGISTERS, READS_AND_WRITES, data) }
    }

    /// How many bytes an access is about.
    pub fn size(&self, info: MemoryInfo) -> u64 {
        // SAFETY: a function of its argument only.
        1 << unsafe { (self.size_shift)(info) }
    }

    /// Whether an access writes.
    pub fn is_store(&self, info: MemoryInfo) -> bool {
        // SAFETY: a function of its argument only.
        unsafe { (self.is_store)(info) }
    }

    /// The physical address of an access; `None` if that is a device's. Called from the access's
    /// callback only.
    pub fn physical_address(&self, info: MemoryInfo, address: u64) -> Option<u64> {
        // SAFETY: called by the CPU that accesses the memory, as its callback.
        let hardware = unsafe { (self.hardware_address)(info, address) };
        // SAFETY: what was just given is valid until the callback returns.
        (!hardware.is_null() && !unsafe { (self.is_io)(hardware) })
            // SAFETY: the same.
            .then(|| unsafe { (self.physical_address)(hardware) })
    }
}

/// The version of the interface that QEMU is told that this plugin speaks. QEMU reads it before it
/// calls anything.
#[unsafe(no_mangle)]
static mut qemu_plugin_version: c_int = 1;

/// Run by the dynamic linker when the library is loaded: a QEMU that has scoreboards (9.0) speaks
/// version 2 at least, and no later one accepts version 1.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = {
    extern "C" fn choose_version() {
        if symbol(c"qemu_plugin_scoreboard_new").is_some() {
            // SAFETY: nobody else runs code of this library, or knows it, before it is loaded.
            unsafe { qemu_plugin_version = 2 };
        }
    }
    choose_version
};
