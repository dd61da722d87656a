# Homebrew formula. scripts/release writes the version and the digest of the source archive into it.
class Umbel < Formula
  desc "Push server that fans messages out to very many WebSocket connections"
  homepage "https://docs.rs/umbel"
  url "https://static.crates.io/crates/umbel/umbel-VERSION.crate"
  sha256 "SHA256"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    system bin/"umbel", "man", man1
    generate_completions_from_executable(bin/"umbel", "completions")
  end

  service do
    run [opt_bin/"umbel", "serve"]
    keep_alive crashed: true
    log_path var/"log/umbel.log"
    error_log_path var/"log/umbel.log"
  end

  test do
    port = free_port
    pid = spawn bin/"umbel", "serve", "--listen", "127.0.0.1:#{port}"
    begin
      sleep 2
      assert_match "ok", shell_output("curl --silent http://127.0.0.1:#{port}/health")
    ensure
      Process.kill "TERM", pid
      Process.wait pid
    end
  end
end
