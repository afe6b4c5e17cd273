//! The shared suite, twice: as a store is in daily life, with everything in overlays, and with
//! overlays so small that nearly every commit is on its way into the tables.

use super::*;

struct DirectoryHome {
    root: tempfile::TempDir,
    options: Options,
}

impl DirectoryHome {
    fn new(overlay_bytes: usize) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let options = Options { overlay_bytes, disk_reserve_bytes: 0, ..Options::default() };
        Self { root, options }
    }
}

#[async_trait]
impl Home for DirectoryHome {
    async fn open(&self) -> Arc<dyn Store> {
        let dir = self.root.path().join("data");
        Arc::new(EmbeddedStore::open(&dir, self.options.clone()).expect("open"))
    }

    fn copy_path(&self) -> PathBuf {
        self.root.path().join("copy")
    }

    async fn open_copy(&self, copy: &Path) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(copy, self.options.clone()).expect("open the copy"))
    }
}

mod in_memory {
    fn home() -> super::DirectoryHome {
        super::DirectoryHome::new(64 << 20)
    }

    crate::store_conformance!(home);
}

mod in_tables {
    fn home() -> super::DirectoryHome {
        super::DirectoryHome::new(200)
    }

    crate::store_conformance!(home);
}
