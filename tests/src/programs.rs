//! The kernel programs by themselves: loaded from the object without pins, fed with one frame at a time by
//! BPF_PROG_TEST_RUN. What needs a socket can't be reached that way: the namespaces show it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, PerCpuArray};
use aya::programs::{Program, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use mailguard_common::maps::{
    Count, Host, HostBucket, Interface, Reason, RuleValue, Settings, host_bucket, map,
};

/// The programs.
pub const STEER: &str = "mg_steer";
/// The XDP program.
pub const EARLY: &str = "mg_early";
/// A TC program that does nothing.
pub const EMPTY_TC: &str = "mg_empty_tc";
/// An XDP program that does nothing.
pub const EMPTY_XDP: &str = "mg_empty_xdp";

/// A sign of life of the proxy that is never too old. Without one the programs ask whether they are in the
/// network namespace that they were attached in, and here they are attached nowhere.
pub const ALIVE: u64 = u64::MAX;

/// Index of the loopback device, which BPF_PROG_TEST_RUN gives its packets to.
const LOOPBACK: u32 = 1;
/// Octets of the largest answer that is looked at.
const MAX_ANSWER_OCTETS: usize = 2048;

/// The loaded object.
pub struct Programs {
    ebpf: Ebpf,
}

/// What a program made of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its return value.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The object that `cargo xtask build` made, or `MAILGUARD_EBPF`.
pub fn object() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/mailguard.bpf.o");
    std::env::var_os("MAILGUARD_EBPF").map_or_else(built, PathBuf::from)
}

impl Programs {
    /// Loads everything; needs root.
    pub fn load() -> Result<Self> {
        let path = object();
        let bytes = std::fs::read(&path).with_context(|| format!("{}: cargo xtask build", path.display()))?;
        let mut ebpf = EbpfLoader::new().load(&bytes)?;
        for (_, program) in ebpf.programs_mut() {
            match program {
                Program::SchedClassifier(program) => program.load()?,
                Program::Xdp(program) => program.load()?,
                _ => {}
            }
        }
        Ok(Self { ebpf })
    }

    /// Sets what every program reads first.
    pub fn settings(&mut self, settings: Settings) -> Result<()> {
        let mut config: Array<_, Settings> = self.map(map::CONFIG)?.try_into()?;
        Ok(config.set(0, settings, 0)?)
    }

    /// Says what the interface of the test frames is.
    pub fn interface(&mut self, interface: Interface) -> Result<()> {
        let mut interfaces: Array<_, Interface> = self.map(map::IFACES_NEAR)?.try_into()?;
        Ok(interfaces.set(LOOPBACK, interface, 0)?)
    }

    /// Adds a host to the blacklist.
    pub fn blacklist_host(&mut self, address: IpAddr, value: RuleValue) -> Result<()> {
        match address {
            IpAddr::V4(v4) => self.blacklist_host4(v4, value),
            IpAddr::V6(v6) => {
                let mut hosts: HashMap<_, [u8; 16], RuleValue> =
                    self.map(map::BLACKLIST_HOSTS6)?.try_into()?;
                Ok(hosts.insert(v6.octets(), value, 0)?)
            }
        }
    }

    fn blacklist_host4(&mut self, address: Ipv4Addr, value: RuleValue) -> Result<()> {
        let index = host_bucket(address.octets());
        let mut buckets: Array<_, HostBucket> = self.map(map::BLACKLIST_HOSTS4)?.try_into()?;
        let mut bucket = buckets.get(&index, 0)?;
        match bucket.hosts.iter_mut().find(|host| **host == Host::default()) {
            Some(place) => *place = Host::new(address.octets(), value),
            None => return self.network(map::BLACKLIST4, address.into(), 32, value),
        }
        Ok(buckets.set(index, bucket, 0)?)
    }

    /// Adds a network to the map `name`.
    pub fn network(&mut self, name: &str, address: IpAddr, length: u32, value: RuleValue) -> Result<()> {
        let map = self.map(name)?;
        match address {
            IpAddr::V4(v4) => {
                let mut networks: LpmTrie<_, [u8; 4], RuleValue> = map.try_into()?;
                networks.insert(&Key::new(length, v4.octets()), value, 0)?;
            }
            IpAddr::V6(v6) => {
                let mut networks: LpmTrie<_, [u8; 16], RuleValue> = map.try_into()?;
                networks.insert(&Key::new(length, v6.octets()), value, 0)?;
            }
        }
        Ok(())
    }

    /// Packets counted for `reason`.
    pub fn packets(&mut self, reason: Reason) -> Result<u64> {
        let counts: PerCpuArray<_, Count> = self.map(map::STATS)?.try_into()?;
        Ok(counts.get(&(reason as u32), 0)?.iter().map(|count| count.packets).sum())
    }

    /// What the program `name` makes of `frame`.
    pub fn run(&self, name: &str, frame: &[u8]) -> Result<Outcome> {
        let mut answer = vec![0; MAX_ANSWER_OCTETS];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut answer), ..Default::default() };
        let result = self.test(name, options)?;
        answer.truncate(result.data_size_out as usize);
        Ok(Outcome { verdict: result.return_value as i32, frame: answer })
    }

    /// The mean time that the program `name` takes for `frame`, over `repeat` runs.
    pub fn time(&self, name: &str, frame: &[u8], repeat: u32) -> Result<Duration> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..Default::default() };
        Ok(self.test(name, options)?.duration)
    }

    fn test(&self, name: &str, options: TestRunOptions<'_>) -> Result<aya::programs::TestRunResult> {
        match self.ebpf.program(name) {
            Some(Program::SchedClassifier(program)) => Ok(program.test_run(options)?),
            Some(Program::Xdp(program)) => Ok(program.test_run(options)?),
            _ => bail!("the object has no program {name}"),
        }
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }
}
