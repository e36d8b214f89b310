// A button beside every command. Pages opened from a disk may lack the clipboard: then the text is selected.
function copyButton(code) {
  const button = element("button", { type: "button", class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = document.execCommand("copy") ? "copied" : "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  } }, "copy");
  return button;
}

function commandBox(text) {
  const code = element("code", {}, text);
  return element("div", { class: "command" }, element("pre", { tabindex: 0 }, code), copyButton(code));
}

for (const pre of document.querySelectorAll("pre")) {
  const box = element("div", { class: "command" });
  pre.replaceWith(box);
  box.append(pre, copyButton(pre.querySelector("code")));
}
