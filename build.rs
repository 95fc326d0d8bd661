//! Compiles the minimal `.proto` files under `proto/` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<_> = std::fs::read_dir("proto")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "proto"));
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    // The same record always gives the same bytes.
    prost_build::Config::new()
        .btree_map([".simclr.example"])
        .compile_fds(descriptors)?;
    Ok(())
}
