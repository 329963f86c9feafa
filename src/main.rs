//! The exit code, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_name_service_inside();
    ExitCode::from(unstuck::run(std::env::args_os()))
}

/// A statically linked C library would load the machine's own name-service plug-ins, and with them another C library, and
/// crash. Files and DNS are built in, so it is told to use nothing else.
fn keep_name_service_inside() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> libc::c_int;
        }
        for (database, line) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
            // SAFETY: both are static C strings, and no other thread runs yet.
            unsafe { __nss_configure_lookup(database.as_ptr(), line.as_ptr()) };
        }
    }
}
