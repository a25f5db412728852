"use strict";
(function () {
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const box = document.getElementById("viewer");
  const message = document.getElementById("viewer-message");
  const controls = document.getElementById("controls");
  if (!data) { return; }
  const probe = document.createElement("canvas");
  if (!(probe.getContext("webgl2") || probe.getContext("webgl"))) {
    message.textContent = "The 3-D view needs WebGL, which this browser does not offer or has switched off. " +
      "Everything else on this page is complete.";
    return;
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const members = (indices) => { const set = new Set(indices); return { predicate: (atom) => set.has(atom.index) }; };
  let viewer;
  try {
    box.classList.add("live");
    viewer = window["$3Dmol"].createViewer(box, { backgroundColor: colour("--card"), antialias: true });
    viewer.addModel(data.pdb, "pdb", { keepH: true });  // indices count hydrogens
  } catch (problem) {
    box.classList.remove("live");
    box.replaceChildren(message);
    message.textContent = "The 3-D view could not start (" + problem.message + "). Everything else on this page is complete.";
    return;
  }
  message.remove();
  const show = { cartoon: data.cartoon, water: true };

  // Carbons, and oxygens of water, carry the colour of the zone; the other elements keep their usual ones.
  const water = new Set(data.water);
  const mixed = (from, to, share) => {
    const parts = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
    const [a, b] = [parts(from), parts(to)];
    return "#" + a.map((x, k) => Math.round(x + share * (b[k] - x)).toString(16).padStart(2, "0")).join("");
  };
  // lambda of each atom is its B-factor.
  const by_lambda = () => {
    const [mm, ml, element] = [colour("--mm"), colour("--accent"), by_element("")];
    return (atom) => atom.elem === "C" || (atom.elem === "O" && water.has(atom.index)) ? mixed(mm, ml, atom.b) : element(atom);
  };
  const by_element = (carbon) => {
    const element = { H: "#e9ecef", N: "#4263eb", O: "#e03131", S: "#e6b800", P: "#e8850c", F: "#37b24d", CL: "#37b24d", BR: "#a0522d", I: "#7b2cbf" };
    return (atom) => element[atom.elem.toUpperCase()] || (atom.elem === "C" ? carbon : "#8d99a6");
  };
  const lit = { predicate: (atom) => atom.b > 0 };
  function draw() {
    viewer.setStyle({}, {});
    if (show.cartoon) {
      viewer.setStyle(members(data.polymer), { cartoon: { color: "#a9b8c8", opacity: 0.65 } });
    } else {
      viewer.setStyle(members(data.polymer), { stick: { radius: data.small ? 0.14 : 0.05, colorfunc: by_element(colour("--mm")) } });
    }
    viewer.setStyle(members(data.other), { stick: { radius: 0.14, colorfunc: by_element("#9aa5b1") } });
    viewer.addStyle(members(data.near), { stick: { radius: 0.08, colorfunc: by_element(colour("--mm")) } });
    if (show.water) {
      viewer.setStyle(members(data.water), { stick: { radius: 0.035, color: "#6aa9c9" } });
      viewer.setStyle(members(data.ions), { sphere: { scale: 0.3, color: "#9775fa" } });
    }
    const blended = by_lambda();
    viewer.setStyle(lit, {
      stick: { radius: 0.2, colorfunc: blended },
      sphere: { scale: 0.27, colorfunc: blended }
    });
    viewer.setBackgroundColor(colour("--card"));
    viewer.render();
  }
  function focus(atoms, factor) {
    if (atoms.length) { viewer.zoomTo(members(atoms)); viewer.zoom(factor); } else { viewer.zoomTo(); }
    viewer.render();
  }
  function toggle(id, key) {
    const button = document.getElementById(id);
    button.addEventListener("click", () => {
      show[key] = !show[key];
      button.setAttribute("aria-pressed", String(show[key]));
      draw();
    });
  }
  document.getElementById("zoom-region").addEventListener("click", () => focus(data.focus, data.small ? 0.9 : 0.55));
  document.getElementById("zoom-all").addEventListener("click", () => { viewer.zoomTo(); viewer.render(); });
  toggle("toggle-cartoon", "cartoon");
  toggle("toggle-water", "water");
  document.getElementById("toggle-cartoon").hidden = !data.cartoon;
  document.getElementById("toggle-water").hidden = !(data.water.length || data.ions.length);
  controls.hidden = false;

  // Bonds of the region by distance, anew in each frame: a reaction breaks some and makes others.
  const radius = { H: 0.31, B: 0.84, C: 0.73, N: 0.71, O: 0.66, F: 0.57, SI: 1.11, P: 1.07, S: 1.05, CL: 1.02, BR: 1.2, I: 1.39 };
  function rebond(atoms) {
    const own = atoms.filter((atom) => atom.b > 0), inside = new Set(own.map((atom) => atom.index));
    own.forEach((atom) => {
      const outside = atom.bonds.map((k, i) => [k, atom.bondOrder[i]]).filter(([k]) => !inside.has(k));
      own.forEach((other) => {
        if (other === atom) { return; }
        const limit = 1.25 * ((radius[atom.elem.toUpperCase()] || 1.5) + (radius[other.elem.toUpperCase()] || 1.5));
        const apart = (atom.x - other.x) ** 2 + (atom.y - other.y) ** 2 + (atom.z - other.z) ** 2;
        if (apart < limit * limit) { outside.push([other.index, 1]); }
      });
      atom.bonds = outside.map(([k]) => k);
      atom.bondOrder = outside.map(([, order]) => order);
    });
  }

  // Frames: coordinates of every atom of the view as whole numbers of a small step; the last one is the view's own.
  function player(played) {
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const atoms = viewer.getModel().selectedAtoms({});
    const own = atoms.map((atom) => [atom.x, atom.y, atom.z, atom.b]);
    const packed = new DataView(bytes(played.xyz).buffer), weights = played.weights && bytes(played.weights);
    const count = played.numbers.length, axes = ["x", "y", "z"];
    const slider = document.getElementById("frame"), play = document.getElementById("play");
    const when = document.getElementById("when");
    const label = (k) => {
      if (k === count) { return data.source; }
      if (played.labels) { return played.labels[k]; }
      const time = played.times[k];
      return time === null ? "frame " + played.numbers[k] : Number(time.toPrecision(6)) + " ps";
    };
    function place(k) {
      atoms.forEach((atom, i) => {
        axes.forEach((axis, j) => {
          atom[axis] = k === count ? own[i][j]
            : played.centre[j] + played.step * packed.getInt16(6 * (k * atoms.length + i) + 2 * j, true);
        });
        if (weights) { atom.b = k === count ? own[i][3] : weights[k * atoms.length + i] / 255; }
      });
      if (data.reacts) { rebond(atoms); }
      when.value = label(k);
      slider.setAttribute("aria-valuetext", label(k));
      draw();
    }
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let timer = 0;
    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
      play.setAttribute("aria-pressed", "false");
    }
    function start() {
      if (+slider.value >= count) { slider.value = 0; place(0); }
      timer = setInterval(() => {
        slider.value = +slider.value + 1;
        place(+slider.value);
        if (data.loops && +slider.value >= count) { slider.value = 0; place(0); }
        else if (+slider.value >= count) { stop(); }
      }, still ? 400 : 100);
      play.textContent = "Pause";
      play.setAttribute("aria-pressed", "true");
    }
    slider.max = count;
    slider.value = count;
    slider.setAttribute("aria-valuetext", label(count));
    when.value = label(count);
    slider.addEventListener("input", () => { stop(); place(+slider.value); });
    play.addEventListener("click", () => { if (timer) { stop(); } else { start(); } });
    document.getElementById("player").hidden = false;
  }
  if (data.played) { player(data.played); }
  draw();
  focus(data.focus, data.small ? 0.9 : 0.55);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // A drawing surface prints blank; a picture of it does not.
  addEventListener("beforeprint", () => { document.getElementById("printed").src = viewer.pngURI(); });
}());
