// Encodes texts with llama.cpp, as a `worker.Worker`: `node peer_llama_cpp.mjs '{"modules": DIR, "folder": DIR,
// "precision": "q8_0", "threads": 2}'` answers jobs read from standard input, one a line. Token ids come from files that
// `peer_llama_cpp.py` wrote. Texts go to as many contexts as there are threads, one thread each: an embedding context of
// node-llama-cpp takes one text at a time. Queries have a context with all threads.
import fs from "node:fs";
import readline from "node:readline";
import {pathToFileURL} from "node:url";

const WARM_UP = 64;
const QUERIES = 200;
const {modules, folder, precision, kinds, threads} = JSON.parse(process.argv[2]);
const file = `${modules}/node-llama-cpp/dist/index.js`;
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(file));
const llama = await getLlama({gpu: false, maxThreads: threads, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: `${folder}/llama-${precision}.gguf`});

const read = (name) => JSON.parse(fs.readFileSync(`${folder}/${name}-ids.json`, "utf-8"));
const lengths = [...kinds, ...(kinds.includes("short") ? ["query"] : [])].flatMap(read).map((ids) => ids.length);
const size = lengths.reduce((one, other) => Math.max(one, other + 1), 1024);
const open = (each) => model.createEmbeddingContext({contextSize: size, batchSize: size, threads: each});
const contexts = await Promise.all(Array.from({length: threads}, () => open(1)));
const whole = threads === 1 ? contexts[0] : await open(threads);

async function encode(texts) {
    let next = 0;
    await Promise.all(contexts.map(async (context) => {
        while (next < texts.length) await context.getEmbeddingFor(texts[next++]);
    }));
}

async function timeQueries(texts) {
    const seconds = [];
    await whole.getEmbeddingFor(texts[0]);
    for (const text of texts) {
        const start = performance.now();
        await whole.getEmbeddingFor(text);
        seconds.push((performance.now() - start) / 1000);
    }
    return seconds;
}

const linux = process.platform === "linux";
function field(name) {
    const line = fs.readFileSync("/proc/self/status", "utf-8").split("\n").find((one) => one.startsWith(name));
    return 1024 * parseInt(line.split(/\s+/)[1]);
}
function resetPeak() {
    if (!linux) return process.resourceUsage().maxRSS * 1024;
    try { fs.writeFileSync("/proc/self/clear_refs", "5"); } catch {}
    return field("VmRSS");
}

const jobs = {
    async warm_up({kind}) {
        await encode(read(kind).slice(0, WARM_UP));
        return {loaded_bytes: resetPeak()};
    },
    async round({kind}) {
        const texts = read(kind);
        const start = performance.now();
        await encode(texts);
        const answer = {seconds: (performance.now() - start) / 1000, texts: texts.length};
        return kind !== "short" ? answer : {...answer, query_seconds: await timeQueries(read("query").slice(0, QUERIES))};
    },
    async peak() {
        return {peak_bytes: linux ? field("VmHWM") : process.resourceUsage().maxRSS * 1024};
    },
    async vector({ids}) {
        return {vector: (await whole.getEmbeddingFor(ids)).vector};
    }
};

const send = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");
send({});
for await (const line of readline.createInterface({input: process.stdin})) {
    const [job, keywords] = JSON.parse(line);
    send(await jobs[job](keywords));
}
process.exit(0);
