/* Search on pages opened from disk, where browsers start no workers: the worker's script runs in a hidden frame. */
class FileWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inner = this.frame.contentWindow;
    inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    const load = (source) =>
      new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src: source, onload: done, onerror: failed });
        inner.document.body.append(script);
      });
    inner.importScripts = async (...sources) => {
      for (const source of sources) await load(source);
    };
    this.ready = load(url);
  }

  async postMessage(data) {
    await this.ready;
    const inner = this.frame.contentWindow;
    inner.dispatchEvent(new inner.MessageEvent("message", { data }));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") {
  window.Worker = FileWorker;
  window.IFrameWorker = FileWorker; // the search script looks for this name to find its languages
}
