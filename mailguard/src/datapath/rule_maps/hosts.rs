//! Blacklisted IPv4 addresses, in the buckets in which a program finds each with one look.

use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use mailguard_common::maps::{HOST_BUCKETS, Host, HostBucket, RuleValue, host_bucket, map};

use super::super::DatapathError;
use super::super::object::take_map;

/// The open buckets.
pub(super) struct Hosts {
    buckets: Array<MapData, HostBucket>,
}

impl Hosts {
    /// Opens the buckets of the loaded object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self { buckets: take_map(ebpf, map::BLACKLIST_HOSTS4)? })
    }

    /// Says this of the address; false if its bucket is full.
    pub(super) fn insert(&mut self, address: Ipv4Addr, value: RuleValue) -> Result<bool, DatapathError> {
        let (index, mut bucket) = self.bucket(address)?;
        let place = place(&bucket, address).or_else(|| bucket.hosts.iter().position(|host| is_empty(*host)));
        let Some(place) = place else { return Ok(false) };
        bucket.hosts[place] = Host::new(address.octets(), value);
        self.write(index, bucket)?;
        Ok(true)
    }

    /// Says nothing of the address any more.
    pub(super) fn remove(&mut self, address: Ipv4Addr) -> Result<(), DatapathError> {
        let (index, mut bucket) = self.bucket(address)?;
        if let Some(place) = place(&bucket, address) {
            bucket.hosts[place] = Host::default();
            self.write(index, bucket)?;
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn read(&self) -> Result<Vec<(Ipv4Addr, RuleValue)>, DatapathError> {
        let mut found = Vec::new();
        for index in 0..HOST_BUCKETS {
            let bucket = self.buckets.get(&index, 0).map_err(DatapathError::map(map::BLACKLIST_HOSTS4))?;
            let hosts = bucket.hosts.iter().filter(|host| !is_empty(**host));
            found.extend(hosts.map(|host| (Ipv4Addr::from(host.address), host.value())));
        }
        Ok(found)
    }

    fn bucket(&self, address: Ipv4Addr) -> Result<(u32, HostBucket), DatapathError> {
        let index = host_bucket(address.octets());
        let bucket = self.buckets.get(&index, 0).map_err(DatapathError::map(map::BLACKLIST_HOSTS4))?;
        Ok((index, bucket))
    }

    fn write(&mut self, index: u32, bucket: HostBucket) -> Result<(), DatapathError> {
        self.buckets.set(index, bucket, 0).map_err(DatapathError::map(map::BLACKLIST_HOSTS4))
    }
}

fn is_empty(host: Host) -> bool {
    host == Host::default()
}

fn place(bucket: &HostBucket, address: Ipv4Addr) -> Option<usize> {
    bucket.hosts.iter().position(|host| host.address == u32::from(address) && !is_empty(*host))
}
