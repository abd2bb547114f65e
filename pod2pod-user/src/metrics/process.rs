//! Figures of this process, under the names that Prometheus clients use.

use procfs::process::Process;

use super::{Counted, Kind};

/// CPU time, memory, descriptors, threads, start; those that can be read.
pub fn figures() -> Vec<Counted> {
    let version = Counted::gauge("build_info", "Which pod2pod this is; always 1.", 1)
        .with("version", env!("CARGO_PKG_VERSION"));
    let mut rows = vec![version];
    let Ok(process) = Process::myself() else { return rows };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        let seconds = (stat.utime + stat.stime) as f64 / ticks;
        let resident = stat.rss as f64 * procfs::page_size() as f64;
        rows.push(row("process_cpu_seconds_total", "CPU time, user and system.", Kind::Counter, seconds));
        rows.push(row("process_resident_memory_bytes", "Resident memory.", Kind::Gauge, resident));
        rows.push(row("process_virtual_memory_bytes", "Virtual memory.", Kind::Gauge, stat.vsize as f64));
        rows.push(row("process_threads", "Threads.", Kind::Gauge, stat.num_threads as f64));
        if let Ok(boot) = procfs::boot_time_secs() {
            let start = boot as f64 + stat.starttime as f64 / ticks;
            rows.push(row("process_start_time_seconds", "Start, seconds since 1970.", Kind::Gauge, start));
        }
    }
    if let Ok(count) = process.fd_count() {
        rows.push(row("process_open_fds", "Open file descriptors.", Kind::Gauge, count as f64));
    }
    if let Ok(limits) = process.limits()
        && let procfs::process::LimitValue::Value(limit) = limits.max_open_files.soft_limit
    {
        rows.push(row("process_max_fds", "File descriptors that may be open.", Kind::Gauge, limit as f64));
    }
    rows
}

fn row(name: &str, help: &'static str, kind: Kind, value: f64) -> Counted {
    Counted { name: name.to_owned(), help, kind, labels: Vec::new(), value }
}
