// SPDX-License-Identifier: MIT OR Apache-2.0

//! What QEMU calls.

use std::error::Error;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use mutex_abi::marks::Mark;

use crate::api::{Api, Block, Id, Info, Insn, MemoryInfo};
use crate::instruction::Instruction;
use crate::memory::MAX_CPUS;
use crate::ram::Ram;
use crate::recording::Recording;
use crate::settings::Settings;
use crate::watch::{InstructionId, Watch};

/// What the plugin is at.
enum State {
    /// Only a mark to prepare is looked for.
    Idle,
    /// It has seen one: as soon as QEMU has thrown its translations away, everything is watched.
    Preparing,
    /// Everything is watched.
    Watching(Box<Watch>, Ram),
    /// A window was closed: as soon as QEMU has thrown its translations away, all is idle.
    Closing,
}

struct Plugin {
    api: Api,
    id: Id,
    settings: Settings,
    cpus: usize,
    state: Mutex<State>,
    /// How many windows were closed.
    windows: Mutex<u64>,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// Called by QEMU once when it has loaded the plugin. Not 0 if the plugin cannot run; QEMU ends then.
///
/// # Safety
///
/// The arguments are those of QEMU's `qemu_plugin_install_func_t`.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    let arguments: Vec<&[u8]> = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the caller's promise: `argv` has `argc` strings, which stay.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes())
        .collect();
    match Plugin::new(id, info, &arguments) {
        Ok(plugin) => {
            let plugin = PLUGIN.get_or_init(|| plugin);
            plugin.api.on_translation(id, translate_idly);
            0
        }
        Err(error) => {
            eprintln!("mutex-lens: {error}");
            1
        }
    }
}

impl Plugin {
    fn new(id: Id, info: &Info, arguments: &[&[u8]]) -> Result<Self, Box<dyn Error>> {
        let [argument] = arguments else {
            return Err("wants one argument: settings=PATH".into());
        };
        let path = argument.strip_prefix(b"settings=");
        let path = Path::new(OsStr::from_bytes(path.ok_or("wants settings=PATH")?));
        let cannot = |error: &dyn Error| format!("cannot read {}: {error}", path.display());
        let text = fs::read(path).map_err(|error| cannot(&error))?;
        let settings: Settings = serde_json::from_slice(&text).map_err(|error| cannot(&error))?;
        if !info.system_emulation {
            return Err("watches machines, not programs".into());
        }
        let cpus = usize::try_from(info.cpus)?;
        if Watch::new(&settings.caches, cpus).is_none() {
            return Err(format!(
                "cannot model caches of {cpus} CPUs (at most {MAX_CPUS}), or not such (the number of \
                 sets has to be a power of two): {:?}",
                settings.caches
            )
            .into());
        }
        Ok(Self {
            api: Api::load(info.version)?,
            id,
            settings,
            cpus,
            state: Mutex::new(State::Idle),
            windows: Mutex::new(0),
        })
    }

    /// The plugin, which is there whenever QEMU calls.
    fn get() -> Option<&'static Self> {
        PLUGIN.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends QEMU.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mark to prepare was executed.
    fn prepare(&self) {
        *self.state() = State::Preparing;
        self.api.reset(self.id, after_reset);
    }

    fn close(&self, recording: &Recording) {
        *self.state() = State::Closing;
        self.api.reset(self.id, after_reset);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.settings.directory.join(format!("{windows}.json"));
        *windows += 1;
        if let Err(error) = write(&path, recording) {
            eprintln!("mutex-lens: cannot write {}: {error}", path.display());
        }
    }
}

/// Writes a recording so that it is there whole or not at all.
fn write(path: &Path, recording: &Recording) -> Result<(), Box<dyn Error>> {
    let unfinished = path.with_extension("partial");
    fs::write(&unfinished, serde_json::to_vec(recording)?)?;
    Ok(fs::rename(unfinished, path)?)
}

/// All translations are gone, and all callbacks with them.
extern "C" fn after_reset(id: Id) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let mut state = plugin.state();
    let callback = match *state {
        State::Preparing => match Watch::new(&plugin.settings.caches, plugin.cpus) {
            Some(watch) => {
                *state = State::Watching(Box::new(watch), Ram::find());
                translate
            }
            // It was tried before.
            None => translate_idly,
        },
        State::Closing => {
            *state = State::Idle;
            translate_idly
        }
        State::Idle | State::Watching(..) => return,
    };
    plugin.api.on_translation(id, callback);
}

fn instruction(api: &Api, insn: Insn) -> Instruction {
    let mut bytes = [0; Instruction::MAX_SIZE];
    Instruction::decode(api.address(insn), api.bytes(insn, &mut bytes))
}

/// A block is translated while nothing is to be watched.
extern "C" fn translate_idly(_: Id, block: Block) {
    let Some(Plugin { api, .. }) = Plugin::get() else {
        return;
    };
    for insn in api.instructions(block) {
        let mut bytes = [0; Instruction::MAX_SIZE];
        if Mark::of_instruction(api.bytes(insn, &mut bytes)) == Some(Mark::Prepare) {
            api.on_execution(insn, prepare, 0);
        }
    }
}

/// A mark to prepare is executed while nothing is watched.
extern "C" fn prepare(_: c_uint, _: *mut c_void) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    if matches!(*plugin.state(), State::Idle) {
        plugin.prepare();
    }
}

/// A block is translated that is to be watched.
extern "C" fn translate(_: Id, block: Block) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let api = &plugin.api;
    let State::Watching(watch, ram) = &mut *plugin.state() else {
        return;
    };
    for insn in api.instructions(block) {
        let physical = ram.physical(api.host_address(insn));
        let id = watch.add(instruction(api, insn), physical);
        api.on_execution(insn, execute, id as usize);
        api.on_access(insn, access);
    }
}

/// An instruction is about to be executed.
extern "C" fn execute(cpu: c_uint, data: *mut c_void) {
    let Some(plugin) = Plugin::get() else {
        return;
    };
    let id = data.addr() as InstructionId;
    let mut state = plugin.state();
    let State::Watching(watch, _) = &mut *state else {
        return;
    };
    let closed = watch.execute(cpu as usize, id);
    let is_prepare = watch.is_mark(id, Mark::Prepare);
    drop(state);
    if is_prepare {
        plugin.prepare();
    }
    if let Some(recording) = closed {
        plugin.close(&recording);
    }
}

/// The instruction that the CPU is at has accessed memory.
extern "C" fn access(cpu: c_uint, info: MemoryInfo, address: u64, _: *mut c_void) {
    let Some(Plugin { api, state, .. }) = Plugin::get() else {
        return;
    };
    // A device's registers are not cached.
    let Some(physical) = api.physical_address(info, address) else {
        return;
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let State::Watching(watch, _) = &mut *state {
        watch.access(
            cpu as usize,
            address,
            physical,
            api.size(info),
            api.is_store(info),
        );
    }
}
