// pm2 start gen_miner.config.js: the generator under pm2. Settings: .env.gen_miner beside this file.
const path = require("path");

module.exports = {
  apps: [
    {
      name: "gas-generator",
      cwd: __dirname,
      script: path.join(__dirname, "neurons", "generator", "miner.py"),
      interpreter: path.join(__dirname, ".venv", "bin", "python"),
      args: ["--env-file", path.join(__dirname, ".env.gen_miner")],
      exec_mode: "fork",
      autorestart: true,
      // Status 2 means wrong settings: starting again would change nothing.
      stop_exit_codes: [2],
      exp_backoff_restart_delay: 1000,
      // A stop waits for paid calls that are under way.
      kill_timeout: 15000,
      merge_logs: true,
    },
  ],
};
